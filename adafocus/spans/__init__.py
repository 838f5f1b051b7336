"""Spans in long videos and streams: what happens, from when to when, and how sure that is.

`finder.Finder` finds them, `timeline.Timeline` makes them of probabilities, `files` writes them.
"""

#: Defaults of `Finder`, which the command line also shows before torch is imported.
WINDOW, OVERLAP, FOCUS_BELOW = 2.0, 4, 0.9
