"""Class names for published checkpoints whose files do not contain them."""

from __future__ import annotations

from typing import Any

#: The classes of Jester sorted by name, as tools/gen_label_jester.py of WavesUR/embedded_TSM sorts them; the list
#: `catigories` in online_demo/main.py of mit-han-lab/temporal-shift-module is the same.
JESTER = (
    "Doing other things",
    "Drumming Fingers",
    "No gesture",
    "Pulling Hand In",
    "Pulling Two Fingers In",
    "Pushing Hand Away",
    "Pushing Two Fingers Away",
    "Rolling Hand Backward",
    "Rolling Hand Forward",
    "Shaking Hand",
    "Sliding Two Fingers Down",
    "Sliding Two Fingers Left",
    "Sliding Two Fingers Right",
    "Sliding Two Fingers Up",
    "Stop Sign",
    "Swiping Down",
    "Swiping Left",
    "Swiping Right",
    "Swiping Up",
    "Thumb Down",
    "Thumb Up",
    "Turning Hand Clockwise",
    "Turning Hand Counterclockwise",
    "Zooming In With Full Hand",
    "Zooming In With Two Fingers",
    "Zooming Out With Full Hand",
    "Zooming Out With Two Fingers",
)
#: Rules of `process_output` in TSM's online_demo/main.py: classes that are never shown, and a class that is shown as
#: another one. The label shown before the first prediction is the first entry of `history` in `main` of that file.
JESTER_SMOOTHING: dict[str, Any] = {"ignored": (7, 8, 21, 22, 3), "replaced": {0: 2}, "rest": 2}
