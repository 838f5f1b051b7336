"""Policies: modules that turn glance maps into places.

One of a plug-in (`adafocus.register_policy`) takes the place of AdaFocus V2's own. Its factory is called with
`channels` and `map_size` of the glance map, `segments` T, `hidden` (the configured width), and with what
`policy.options` holds:

- on plain backbones it is called with maps (B, n, channels, h, w) of n frames in processing order and the state that it
  returned for the frames before (None at first). It returns corners (B, n, 2) in [0, 1] as (y, x), and a state (1, B,
  ...) or None. Evaluation calls it for all T frames at once, early exit for a few at a time: the answers must be the
  same;
- on TSM it is called with maps (B, T, channels, h, w) and returns one corner a video, (B, 2).

It gets no gradient into the glance network, and learns from the loss through the corners.
"""
