"""Inspects the packets of video files: size, number of frames, key frames, and whether random access can be trusted."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Containers, codecs and pixel formats in which decord's random access was compared with a sequential decode.
_SAFE_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm"))
_SAFE_CODECS = frozenset(("h264", "hevc", "vp8", "vp9", "mpeg4"))
_SAFE_PIXELS = frozenset(("yuv420p",))
#: FFmpeg's names of the containers that may come from elsewhere: those of `folders.VIDEO_SUFFIXES`.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,gif"


class VideoError(Exception):
    """Raised if a video cannot be read; the message is one line with path and reason. A single one ends no run."""


def source(path: Path, data: bytes | None) -> Any:
    """What a decoder opens: a path, or a file object of the bytes of a video that is no file on this disk."""
    return str(path) if data is None else io.BytesIO(data)


@dataclass(frozen=True)
class Layout:
    """Properties of a video file from its packets, without decoding.

    Attributes:
        frames: number of packets that are displayed; equals the number of frames of an undamaged file.
        height, width: size of the upright frames in pixels.
        turns: counterclockwise quarter turns from the stored to the upright frame.
        doubt: why random access or the packet count cannot be trusted; empty if both can.
        counted: whether `frames` is certain without decoding.
        keys: indices of the key frames, at which decoding can start.
    """

    frames: int
    height: int
    width: int
    turns: int
    fps: float
    doubt: str
    counted: bool
    keys: int = 1


def open_container(path: Path, data: bytes | None) -> Any:
    """Opens a video with PyAV. What came from elsewhere may be a video only, and no playlist that names other files."""
    import av

    return av.open(source(path, data), options={} if data is None else {"format_whitelist": _CONTAINERS})


def inspect_packets(path: Path, data: bytes | None = None) -> Layout:
    """The layout of a video file, or of its bytes under the name `path`; VideoError or an exception of PyAV."""
    with open_container(path, data) as container:
        if not container.streams.video:
            raise VideoError(f"{path}: no video stream in it")
        stream = container.streams.video[0]
        shown, hidden, stamps, last_key, open_gop, reordered = 0, 0, set(), None, False, False
        keys = 0
        last_stamp = None
        decoding = end = 0.0  # the latest time stamp of decoding, in ticks, and the latest end of a frame, in seconds
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.is_discard:
                hidden += 1
                continue
            shown += 1
            keys += packet.is_keyframe
            stamp = packet.pts
            decoding = max(decoding, packet.dts or 0)
            if stamp is not None:
                end = max(end, float((stamp + (packet.duration or 0)) * packet.time_base))
            stamps.add(stamp)
            if stamp is not None:
                open_gop |= last_key is not None and stamp < last_key
                reordered |= last_stamp is not None and stamp < last_stamp
                last_key = stamp if packet.is_keyframe else last_key
                last_stamp = stamp
        codec, pixels = stream.codec_context.name, stream.codec_context.pix_fmt
        streams, kind = len(container.streams.video), container.format.name
        promised, lasts = stream.frames, _seconds(stream.metadata.get("DURATION"))
        height, width = stream.codec_context.height, stream.codec_context.width
        rate = float(stream.average_rate or 0)
        # The rotation is known from the first decoded picture only.
        container.seek(0)
        first = next(container.decode(stream), None)
    if first is None or not shown or not height:
        raise VideoError(f"{path}: no frame can be decoded")
    there = shown + hidden
    # AVI leaves frames out where nothing moves, but its time stamps go on; its header may be off by a few.
    spare = 0 if kind.startswith("mov") else max(2, promised // 50)
    if promised > (there if kind.startswith("mov") else max(there, decoding + 1)) + spare:
        raise VideoError(f"{path}: truncated: its header promises {promised} frames, {there} are there")
    if lasts is not None and end < 0.95 * lasts - 0.1:
        raise VideoError(f"{path}: truncated: its header promises {lasts:.1f} s, {end:.1f} s are there")
    whole_stamps = None not in stamps and len(stamps) == shown
    doubts = {
        "container": path.suffix.lower() not in _SAFE_SUFFIXES,
        "codec": codec not in _SAFE_CODECS or (codec == "mpeg4" and reordered),
        "pixel format": pixels not in _SAFE_PIXELS or bool(first.interlaced_frame),
        "odd size": height % 2 == 1 or width % 2 == 1,
        "several video streams": streams != 1,
        "hidden frames": hidden > 0 or (min(stamps) < 0 if whole_stamps else True),
        "open GOP": open_gop,
        "time stamps": not whole_stamps,
    }
    turns = (int(first.rotation) // 90) % 4
    if turns % 2:
        height, width = width, height
    doubt = ", ".join(name for name, found in doubts.items() if found)
    sure = path.suffix.lower() in _SAFE_SUFFIXES and whole_stamps and not hidden
    return Layout(shown, height, width, turns, rate, doubt, sure, max(1, keys))


def _seconds(duration: str | None) -> float | None:
    """The DURATION of a Matroska or WebM stream, `00:00:04.000000000`, as its writer noted it; None where it says
    nothing."""
    try:
        hours, minutes, seconds = (duration or "").split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None
