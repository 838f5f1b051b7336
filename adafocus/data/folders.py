"""Class folders: finds the videos in them, and the entries that are not videos."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adafocus.core.errors import UserError
from adafocus.data.annotations import Record, Split
from adafocus.data.paths import printable

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mts",
        ".m2ts",
        ".wmv",
        ".flv",
        ".3gp",
        ".ogv",
        ".gif",
    ]
)


@dataclass
class ClassFolders:
    """The class folders below a folder.

    Attributes:
        videos: name of each class folder that has videos -> its videos, sorted.
        empty: folders without a video.
        odd: entries that are named like videos but are not, or that are not searched, each with the reason.
        loose: videos next to the class folders, which belong to no class.
    """

    videos: dict[str, list[Path]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    odd: list[tuple[Path, str]] = field(default_factory=list)
    loose: list[Path] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, sorted, with unprintable characters escaped."""
        return [printable(name) for name in self.videos]


def is_video(name: str) -> bool:
    """Returns whether a file name has a video suffix; macOS metadata files such as `._a.mp4` do not count."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES and not name.startswith("._")


def folders_below(root: Path) -> list[Path]:
    """Returns the folders directly below `root`, sorted, without hidden ones and metadata folders of macOS archives."""
    found = sorted(path for path in root.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX")
    return [path for path in found if os.path.isdir(path)]


def class_folders(root: Path, *, without: Iterable[str] = ()) -> ClassFolders:
    """Searches the folders directly below `root`, except those named in `without`, each of which is a class."""
    found = ClassFolders()
    for folder in folders_below(root):
        if folder.name in without:
            continue
        videos, odd = videos_below(folder)
        found.odd += odd
        if videos:
            found.videos[folder.name] = videos
        else:
            found.empty.append(folder.name)
    found.loose = sorted(path for path in root.iterdir() if is_video(path.name) and os.path.isfile(path))
    return found


def videos_below(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Returns the videos at any depth, sorted, and the entries that look like videos or folders but are not read.

    Links to files are followed, links to folders are not, because they may form a loop or lead to the whole disk.
    """
    videos, odd = [], []
    for top, names, files in os.walk(folder):
        names[:] = [name for name in names if name != "__MACOSX"]
        odd += [
            (Path(top, name), "a link to a folder, not searched") for name in names if os.path.islink(f"{top}/{name}")
        ]
        for name in files:
            if is_video(name):
                if os.path.isfile(f"{top}/{name}"):
                    videos.append(Path(top, name))
                else:
                    odd.append((Path(top, name), "not a regular file"))
    return sorted(videos), sorted(odd)


def folder_split(root: Path, found: ClassFolders, classes: list[str]) -> Split:
    """Makes a split of the videos in class folders; paths are relative to `root`, labels are indices in `classes`."""
    numbers = {name: number for number, name in enumerate(classes)}
    records = [
        Record(str(video.relative_to(root)), (numbers[printable(name)],))
        for name, videos in sorted(found.videos.items(), key=lambda item: numbers[printable(item[0])])
        for video in videos
    ]
    return Split(records, listed=len(records))


def find_videos(named: Sequence[str], template: str) -> list[str]:
    """Returns the videos that files and folders name; those below a folder are sorted by path, and none is repeated.

    Args:
        named: files, folders of videos, and folders of frames.
        template: file names of frames, such as `image_{:05d}.jpg`.

    Raises:
        UserError: a folder has no video.
    """
    frame = re.compile(re.sub(r"\\{.*?\\}", r".+", re.escape(template)))

    def holds_frames(files: list[str]) -> bool:
        return any(frame.fullmatch(name) for name in files)

    found: list[str] = []
    for name in named:
        if not Path(name).is_dir():
            found.append(name)
            continue
        below = []
        for folder, folders, files in os.walk(name):
            if holds_frames(files):
                below.append(folder)
                folders.clear()
                continue
            names = (file for file in files if Path(file).suffix.lower() in VIDEO_SUFFIXES and file[0] != ".")
            below += [path for file in names if os.path.isfile(path := os.path.join(folder, file))]
        if not below:
            raise UserError(
                f"{name} has no video ({' '.join(sorted(VIDEO_SUFFIXES))}) and no folder of frames named like "
                f"{template.format(1, axis='x', video=Path(name).name)}"
            )
        found += sorted(below)
    return list(dict.fromkeys(found))
