"""`Predictor`: predicts whole videos with the network of a checkpoint, as in evaluation, and streams frame by frame."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from adafocus import build, config, inference
from adafocus.checkpoints import detect, fingerprint, load_checkpoint, load_file, tensors
from adafocus.checkpoints.identify import identify
from adafocus.checkpoints.shared import WEIGHTS, fetched, is_address
from adafocus.config import stored
from adafocus.config.compose import compose
from adafocus.config.naming import split_override
from adafocus.config.schema import Config
from adafocus.core import plugins
from adafocus.core.batch import only
from adafocus.core.errors import UserError, as_user_error
from adafocus.core.output import Output, given
from adafocus.core.prediction import Box, Moment, Prediction
from adafocus.core.rng import generator
from adafocus.data.annotations import Record
from adafocus.data.dataset import ArrayClips, VideoClips
from adafocus.data.labels import JESTER, JESTER_SMOOTHING
from adafocus.data.loader import EvaluationOrder, Loader
from adafocus.data.remote import RemoteFiles
from adafocus.data.storage import AnyAddress
from adafocus.data.stream import stream_frames
from adafocus.data.transforms import Normalize
from adafocus.data.view import View
from adafocus.evaluation.evaluate import answer
from adafocus.evaluation.exit_rule import read_rule
from adafocus.evaluation.queues import ExitedClips, exit_window
from adafocus.methods import method_of
from adafocus.methods.network import EarlyExitNetwork, passed_exits
from adafocus.methods.recognizer.model import Recognizer
from adafocus.methods.recognizer.online import OnlineRecognizer, Smoothing
from adafocus.processes.distributed import pick_device

#: File names expected in frame folders if the model was trained on video files.
FRAMES = "image_{:05d}.jpg"
#: A video: path of a file or frame folder, address of a file (`data.remote.PROTOCOLS`), or decoded frames.
Video = str | Path | np.ndarray | torch.Tensor


class Predictor:
    """A network with weights, class names and protocol.

    Args:
        settings: the configuration of the network.
        path: checkpoint with its weights, of this package or of a paper's repository.
        content: content of that file, if it has been read already.
        classes: class names; None: those in the file, else numbers.
        device: auto, cpu or cuda.
        precision: see `adafocus.inference.Program`; or "auto".
        fold_norm: whether to fold BatchNorm into convolutions.
        program: the program of the backbones, `engine` of `adafocus.inference.Program`.
        program_for: the backbones that it runs, `part` there.
        early_exit: a run of mode=early_exit; videos exit early by its rule, see `adafocus.evaluation.exit_rule`.
        budget: a budget of that run; None: see `adafocus.evaluation.exit_rule.read_rule`.
        batch_size: number of videos that pass the network together, on which the last bits of a prediction depend.
            None: 1 on a CPU, where more are not faster; else as in evaluation.

    Raises:
        UserError: the file does not fit the network.
    """

    def __init__(
        self,
        settings: Config,
        path: Path,
        content: Mapping[str, Any] | None = None,
        *,
        classes: Sequence[str] | None = None,
        device: str = "auto",
        precision: str = "fp32",
        fold_norm: bool = False,
        program: str = "eager",
        program_for: str = "all",
        early_exit: str | Path | None = None,
        budget: float | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.settings, self.device = deepcopy(settings), pick_device(device, 0, 1)
        self.rule = None if early_exit is None else read_rule(Path(early_exit).expanduser(), budget)
        self.settings.dataset.flip = 0.0  # flip pairs would need class names, which the file may not have
        content = load_file(path) if content is None else content
        names = classes or content.get("classes")
        size = len(names) if isinstance(names, (list, tuple)) else settings.dataset.classes
        if size is None:
            raise UserError("the number of classes is unknown: set dataset.classes=N or give --classes FILE")
        self.model = build.seeded_model(settings, size, weights=False)
        self.report = load_checkpoint(path, self.model, content, without=build.not_needed(settings))
        self.classes = [str(name) for name in names or range(size)]
        self.network = fingerprint(self.model.state_dict())
        self.model.to(self.device).eval()
        self.program = inference.Program(
            inference.pick_precision(precision, self.device), fold_norm, program, program_for
        )
        side = settings.dataset.frame_size
        shape = (1, build.tested_plan(settings).clip, build.channels(settings), side, side)
        inference.apply(self.model, self.program, torch.randn(shape, device=self.device))
        self.stage = build.stage(settings, self.model)
        if self.rule is not None:
            if not isinstance(self.model, EarlyExitNetwork) or not method_of(settings).exits_early:
                raise UserError(f"method={settings.method.name} has no early exit; leave out --early-exit")
            chunk, glance_exit = self.rule.chunk, self.model.glance_exit
            self.exits = self.rule.checked(passed_exits(self.model.num_exits, chunk, glance_exit=glance_exit))
            self.settings.mode = "early_exit"  # frames are decoded when they are needed
        self.normalize = Normalize(*build.normalization(settings))
        usual = 1 if self.device.type == "cpu" else max(1, settings.evaluate.batch_size // self.view().views)
        self.batch_size = batch_size or usual

    def view(self) -> View:
        """The view (frames, size and crops) of a video in the protocol's test."""
        return build.views(self.settings, self.classes)[0]

    def __call__(self, videos: Video | Sequence[Video]) -> Prediction | list[Prediction]:
        """Predicts one video, or several in batches, exactly as evaluation does.

        Args:
            videos: a video file or its address, a frame folder, or RGB frames (T, H, W, 3) uint8 as array or tensor; or
                a list of these.

        Raises:
            UserError: the only video cannot be read. In a list, the prediction of an unreadable video has an `error`.
        """
        if isinstance(videos, (str, Path, np.ndarray, torch.Tensor)):
            found = next(self.each([videos]))
            if found.error is not None:
                raise UserError(found.error)
            return found
        return list(self.each(videos))

    predict = __call__

    def each(self, videos: Iterable[Video]) -> Iterator[Prediction]:
        """Yields the predictions in the order of `videos`, each as soon as its batch is done."""
        dataset = self.settings.dataset
        if dataset.modality != "rgb":
            raise UserError(
                "this network needs optical flow, which video files do not contain; evaluate it on flow frames"
            )
        view, seed = self.view(), self.settings.seed
        clips: VideoClips
        for kind, group in groupby(enumerate(videos), lambda pair: _kind(pair[1])):
            numbers, chosen = zip(*group, strict=True)
            if kind == "array":
                arrays = [np.asarray(video) for video in chosen]
                clips = ArrayClips(arrays, [0] * len(arrays), view, seed=seed)
                names = [f"array {number}" for number in numbers]
            else:
                storage = AnyAddress(RemoteFiles(dataset.remote_timeout)) if kind == "address" else None
                clips = VideoClips(
                    [Record(str(video if storage else Path(video).absolute()), (0,)) for video in chosen],
                    Path("/"),
                    view,
                    seed=seed,
                    template=dataset.frame_template or FRAMES if kind == "folder" else None,
                    reader=dataset.reader,
                    timeout=dataset.video_timeout,
                    storage=storage,
                    alone=True,
                )
                names = [str(video) for video in chosen]
            yield from self._of(clips, names) if self.rule is None else self._exiting(clips, names)

    def _of(self, clips: VideoClips, names: list[str]) -> Iterator[Prediction]:
        name, protocol, chunk = self.stage.variants[0], self.settings.protocol, self.settings.evaluate.batch_size
        started = time.perf_counter()
        for batch in Loader(clips, EvaluationOrder(len(clips), self.batch_size)):
            rows = batch.valid.nonzero()[:, 0]
            place = {int(row): number for number, row in enumerate(rows)}
            output = Output(torch.empty(0))  # stays empty if no video is readable
            if len(rows):
                readable = only(batch, batch.valid)
                output = answer(self.stage, readable, self.device, (name,), protocol.average, chunk)[name]
                place = {row: number for row, number in place.items() if readable.valid[number]}
            seconds = (time.perf_counter() - started) / len(batch)
            reasons = {bad.index: bad.reason for bad in batch.bad}
            for row, index in enumerate(batch.index.tolist()):
                if row in place:
                    yield self._prediction(clips, index, names[index], output, place[row], seconds)
                else:
                    yield Prediction(names[index], error=reasons[index])
            started = time.perf_counter()

    def _exiting(self, clips: VideoClips, names: list[str]) -> Iterator[Prediction]:
        """Predictions with early exit; those of several batches come together."""
        rule, size = given(self.rule), self.batch_size
        limits = torch.tensor(rule.thresholds, device=self.device)
        batches = iter(Loader(clips, EvaluationOrder(len(clips), size)))
        while True:
            started = time.perf_counter()
            steps = (limits, self.exits, rule.criterion, rule.chunk, size)
            seen, found = exit_window(self.stage, batches, *steps, device=self.device)
            if not seen:
                return
            reasons = {bad.index: bad.reason for batch in seen for bad in batch.bad}
            seconds = (time.perf_counter() - started) / sum(map(len, seen))
            for index in (index for batch in seen for index in batch.index.tolist()):
                if index in reasons:
                    yield Prediction(names[index], error=reasons[index])
                else:
                    yield self._exited(clips, index, names[index], *found[index], seconds)

    def _exited(
        self, clips: VideoClips, index: int, name: str, gone: ExitedClips, row: int, seconds: float
    ) -> Prediction:
        output = Output(gone.logits, where=gone.where, frames=gone.looked)
        found = self._prediction(clips, index, name, output, row, seconds)
        found = replace(found, exit=gone.number, cost=self.exit_costs[gone.number])
        return replace(found, frames=[], boxes=[]) if gone.where is None else found  # only the glance network has run

    def _prediction(
        self, clips: VideoClips, index: int, name: str, output: Output, row: int, seconds: float
    ) -> Prediction:
        logits = output.logits[row].float().cpu()
        scores = logits.softmax(0)
        order = scores.argsort(descending=True).tolist()
        frames, boxes = self._looked(clips, index, output, row)
        labels, sorted_scores = [self.classes[number] for number in order], scores[order].tolist()
        return Prediction(
            name, labels, sorted_scores, logits.tolist(), frames, boxes, self.cost, seconds, self.protocol
        )

    def _looked(self, clips: VideoClips, index: int, output: Output, row: int) -> tuple[list[int], list[Box]]:
        """Returns the indices of the frames that the focus network saw, and its patches in them, in temporal order."""
        view = clips.view
        if view.views != 1:
            return [], []
        count, height, width = clips.shapes[clips.records[index].path]
        if view.candidates:
            numbers = view.evaluation_candidates(count)
        else:
            numbers = view.clips(count, generator(0, "view"))[0][view.segments if view.second else 0 :]
        at = range(len(numbers)) if output.frames is None else output.frames[row].tolist()
        frames = [int(numbers[place]) for place in at]
        if output.where is None:
            return frames, []
        boxes = self.stage.chooser.boxes(output.where[row].float().cpu())
        if not self.stage.chooser.place_per_frame:
            frames = [frame for frame in frames for _ in range(len(boxes))]
            boxes = boxes.repeat(len(frames) // len(boxes), 1)
        pairs = sorted(zip(frames, view.to_video(boxes, height, width).tolist(), strict=True), key=lambda pair: pair[0])
        named = [Box(left, top, left + width, top + height) for _, (top, left, height, width) in pairs]
        return [frame for frame, _ in pairs], named

    @property
    def protocol(self) -> str:
        """One-line description of the frames and crops of a prediction."""
        line = build.protocol_line(self.settings, self.view())
        line = line if self.program.plain else f"{line}; {self.program}"
        return line if self.rule is None else f"{line}; {self.rule}"

    @cached_property
    def cost(self) -> int:
        """Multiply-adds (MACs) of one prediction, over all views of the protocol."""
        cost = build.cost(self.settings, len(self.classes))
        return self.view().views * self.stage.costs(cost)[self.stage.variants[0]]

    @cached_property
    def exit_costs(self) -> list[int]:
        """Multiply-adds (MACs) of a video that stops at each exit."""
        return cast(EarlyExitNetwork, self.model).exit_costs(build.cost(self.settings, len(self.classes)))

    @torch.no_grad()
    def stream(self, source: str | Path, *, every: int = 2, bgr: bool = False) -> Iterator[Moment]:
        """Predicts the frames of a video file or camera one by one, for models trained with `backbone.shift=online`.

        Args:
            source: a file, or the index of a camera.
            every: n processes every n-th frame only (2 in TSM's online_demo/main.py).
            bgr: whether to swap the channels to blue, green, red, as that demo does; it is not known whether the
                published weights expect that.
        """
        with as_user_error():
            online = OnlineRecognizer(cast(Recognizer, self.model)).eval()
        view = build.views(self.settings, self.classes)[1]  # one center crop, whatever the protocol tests with
        smooth = Smoothing(**JESTER_SMOOTHING) if tuple(self.classes) == JESTER else Smoothing()
        caches = online.start(1, view.size)
        for seconds, frame in stream_frames(source, every):
            started = time.perf_counter()
            image = torch.from_numpy(np.ascontiguousarray(frame[..., ::-1] if bgr else frame))
            clip = view.evaluation(image[None])[0, None].to(self.device)
            output = online(self.normalize(clip)[:, 0], caches)
            caches = output.caches
            label = self.classes[smooth(output.logits[0])]
            scores = smooth.mean().softmax(0).tolist()
            yield Moment(seconds, label, scores, time.perf_counter() - started, frame)


def _kind(video: Video) -> str:
    if isinstance(video, (np.ndarray, torch.Tensor)):
        return "array"
    if isinstance(video, str) and is_address(video):
        return "address"
    return "folder" if Path(video).is_dir() else "file"


def recipe(
    path: str | Path, typed: Sequence[str] = (), *, dataset: bool = False, content: Mapping[str, Any] | None = None
) -> list[str]:
    """Infers overrides that build the network of a published checkpoint, from the keys and shapes of its tensors.

    For checkpoints of this package, which store their configuration, the list is empty.

    Args:
        path: the checkpoint.
        typed: the given overrides, which the result does not repeat.
        dataset: whether the data set must be known too, as in evaluation; prediction needs only the number of classes.
        content: content of the file, if it has been read already.

    Raises:
        UserError: the checkpoint does not determine everything; the message names the open choices.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return []
    content = load_file(path) if content is None else content
    if isinstance(content.get("config"), dict):
        return []
    source = detect(state := tensors(content, str(path)))
    identity = None if source is None else identify(source, state)
    if identity is None and typed:
        return []  # the given overrides define the network; loading the weights checks whether they fit
    if identity is None:
        raise UserError(f"{path} does not determine its network; name its experiment, such as experiment=tsm_sthv2_8f")
    return identity.overrides((split_override(override)[0] for override in typed), dataset=dataset)


def stored_overrides(path: Path, typed: Sequence[str]) -> list[str]:
    """Returns overrides that rebuild a checkpoint's network: those of its run, or for published ones of `recipe`."""
    content = load_file(path)
    if not isinstance(content.get("config"), dict):
        # Without a known layout the given overrides define the network; loading checks whether the weights fit.
        known = detect(tensors(content)) not in (None, "adafocus")
        return recipe(path, typed, dataset=True, content=content) if known else []
    keys = [split_override(override)[0] for override in typed]
    return stored.overrides(content.get("overrides") or [], keys, str(path))


def checkpoint_file(path: str | Path) -> Path:
    """Returns a file unchanged; for a run folder the finally evaluated checkpoint; for a shared folder its weights."""
    file = Path(path).expanduser()
    if not file.is_dir():
        return file
    if (file / WEIGHTS).is_file():
        return file / WEIGHTS
    select = config.read(file).schedule.select
    found = [file / name for name in ("best.pt", "last.pt") if (file / name).is_file()]
    if not found:
        raise UserError(f"{file} has no checkpoint, because nothing has been trained there yet; name another folder")
    return found[0] if select == "best" else found[-1]


def load(
    path: str | Path,
    typed: Sequence[str] = (),
    *,
    classes: Sequence[str] | None = None,
    device: str = "auto",
    **program: Any,
) -> Predictor:
    """Loads a predictor from a run folder or checkpoint file.

    Args:
        path: a run folder or checkpoint of this package, a published checkpoint, or the target of `adafocus push`.
        typed: overrides that a published checkpoint needs, as described in `recipe`.
        classes, device, program: arguments of `Predictor`.

    Raises:
        UserError: the file does not fit, or overrides were given for a checkpoint that stores its configuration.
    """
    if is_address(str(path)):
        with fetched(str(path)) as file:
            return load(file, typed, classes=classes, device=device)
    plugins.load()  # imports installed plug-ins with an entry point
    file = checkpoint_file(path)
    content = load_file(file)
    said = content.get("config")
    if isinstance(said, dict):
        if typed:
            raise UserError(f"{path} stores the configuration of its network; leave out {' '.join(typed)}")
        settings = config.from_dict(said)
    else:  # data and weights of the recipe are not needed
        fixed = ("mode=evaluate", "checkpoint=none", "dataset.root=.", "backbone.weights=none")
        settings = compose([*recipe(file, typed, content=content), *typed, *fixed])
    if classes is None and detect(tensors(content, str(path))) == "tsm_online":
        classes = JESTER
    return Predictor(settings, file, content, classes=classes, device=device, **program)
