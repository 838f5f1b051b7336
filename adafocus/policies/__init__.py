"""Policies: modules that choose patch locations, cells or frames from the glance network's feature maps.

A plug-in's policy (`adafocus.register_policy`) replaces that of AdaFocus V2. Its factory is called with `channels` and
`map_size` of the glance maps, `segments` T, `hidden` (the configured width), and the keys of `policy.options`. The
policy must work as follows:
- on plain backbones it is called with maps (B, n, channels, h, w) of n frames in processing order and the state that it
  returned for the frames before (None at first). It returns corners (B, n, 2) in [0, 1] as (y, x), and a state (1, B,
  ...) or None. Evaluation calls it for all T frames at once, early exit for a few at a time; both must give the same
  corners;
- on TSM it is called with maps (B, T, channels, h, w) and returns one corner per video, (B, 2).

A corner is a patch location as docs/glossary.md defines it. The policy gets its gradient through the corners; no
gradient flows from it into the glance network.
"""
