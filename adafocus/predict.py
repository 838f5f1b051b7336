"""A checkpoint as a predictor: of whole videos through the very path of evaluation, and of streams frame by frame."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from adafocus import build, config
from adafocus.data.annotations import Record
from adafocus.data.dataset import EVALUATION, VideoClips, collate
from adafocus.data.labels import JESTER, JESTER_SMOOTHING
from adafocus.data.stream import stream_frames
from adafocus.data.transforms import Normalise
from adafocus.data.view import View
from adafocus.engine.distributed import pick_device
from adafocus.engine.evaluate import answer
from adafocus.errors import UserError
from adafocus.models.online import OnlineRecogniser, Smoothing
from adafocus.schema import Config
from adafocus.weights import detect, load_checkpoint, load_file, tensors

#: What `adafocus predict` composes for an official file that is of one network only.
KNOWN = {"tsm_online": ("experiment=tsm_jester_mbv2_online_8f",)}


@dataclass(frozen=True)
class Prediction:
    """Labels of a video, best first.

    Attributes:
        labels: class names.
        scores: (K,) probabilities in the order of `labels`.
        seconds: from the file to the answer.
        protocol: which frames and crops it is made of.
    """

    labels: list[str]
    scores: list[float]
    seconds: float
    protocol: str


@dataclass(frozen=True)
class Moment:
    """What a stream says after a frame.

    Attributes:
        seconds: time of the frame in the stream.
        label: shown, after smoothing.
        latency: seconds from the frame to the label.
        frame: (H, W, 3) uint8.
    """

    seconds: float
    label: str
    latency: float
    frame: np.ndarray


class Predictor:
    """A network with weights, class names and protocol.

    Args:
        settings: of the network, as `adafocus.config` gives it.
        path: weights of this network, ours or official.
        content: of that file, if it is read already.
        classes: their names; None: those in the file, else numbers.
        device: auto, cpu or cuda.

    Raises:
        UserError: the file does not fit the network.
    """

    def __init__(
        self,
        settings: Config,
        path: Path,
        content: dict[str, object] | None = None,
        *,
        classes: Sequence[str] | None = None,
        device: str = "auto",
    ) -> None:
        self.settings, self.device = deepcopy(settings), pick_device(device, 0, 1)
        self.settings.dataset.flip = 0.0  # and so no class names are asked for, which the file may not have
        content = load_file(path) if content is None else content
        names = classes or content.get("classes")
        count = len(names) if isinstance(names, (list, tuple)) else settings.dataset.classes
        if count is None:
            raise UserError("the number of classes is unknown: set dataset.classes=N or give --classes FILE")
        self.model = build.seeded_model(settings, count, weights=False)
        load_checkpoint(path, self.model, content)
        self.classes = [str(name) for name in names or range(count)]
        self.model.to(self.device).eval()
        self.stage = build.stage(settings, self.model)
        self.normalise = Normalise(settings.dataset.mean, settings.dataset.std)

    def view(self) -> View:
        """How the protocol looks at a video."""
        return build.views(self.settings, self.classes)[0]

    def predict(self, video: str | Path) -> Prediction:
        """Labels of a video file, through the path of evaluation.

        Raises:
            UserError: it cannot be read.
        """
        started = time.perf_counter()
        view, path, dataset = self.view(), Path(video), self.settings.dataset
        if dataset.modality != "rgb":
            raise UserError("this model reads optical flow, which a video file does not hold")
        clips = VideoClips(
            [Record(path.name, (0,))],
            path.parent,
            view,
            seed=self.settings.seed,
            template=dataset.frame_template if path.is_dir() else None,
            reader=dataset.reader,
            timeout=dataset.video_timeout,
        )
        item = clips[EVALUATION, 0]
        if item.frames is None:
            raise UserError(item.bad[0].reason)
        name = self.stage.variants[0]
        batch, protocol = collate([item]), self.settings.protocol
        output = answer(self.stage, batch, self.device, (name,), protocol.average, self.settings.evaluate.batch)[name]
        scores = output.logits[0].float().softmax(0).cpu()
        order = scores.argsort(descending=True).tolist()
        return Prediction(
            [self.classes[number] for number in order],
            [float(scores[number]) for number in order],
            time.perf_counter() - started,
            build.protocol_line(self.settings, view),
        )

    @torch.no_grad()
    def stream(self, source: str | Path, *, every: int = 2, bgr: bool = False) -> Iterator[Moment]:
        """The running label of a video file or camera, for models trained with `backbone.shift=online`.

        Args:
            source: a file, or the index of a camera.
            every: process each n-th frame (the demo: 2).
            bgr: feed blue, green, red, as the released demo does; whether its weights want that is not known.
        """
        try:
            online = OnlineRecogniser(self.model).eval()
        except ValueError as error:
            raise UserError(str(error)) from error
        view = build.views(self.settings, self.classes)[1]  # one centre crop, whatever the protocol tests with
        smooth = Smoothing(**(JESTER_SMOOTHING if tuple(self.classes) == JESTER else {}))
        caches = online.start(1, view.size)
        for seconds, frame in stream_frames(source, every):
            started = time.perf_counter()
            image = torch.from_numpy(np.ascontiguousarray(frame[..., ::-1] if bgr else frame))
            clip = view.evaluation(image[None])[0, None].to(self.device)
            output = online(self.normalise(clip)[:, 0], caches)
            caches = output.caches
            label = self.classes[smooth(output.logits[0])]
            yield Moment(seconds, label, time.perf_counter() - started, frame)


def recipe(path: str | Path) -> tuple[str, ...]:
    """What must be composed to build the network of a checkpoint: nothing for ours, which says so itself.

    Raises:
        UserError: an official file of several possible networks.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return ()
    content = load_file(path)
    if isinstance(content.get("config"), dict):
        return ()
    source = detect(tensors(content))
    if source not in KNOWN:
        raise UserError(f"{path} does not say which network it is of; name its recipe, as in experiment=tsm_sthv2_8f")
    return KNOWN[source]


def load(
    path: str | Path, composed: Config | None = None, *, classes: Sequence[str] | None = None, device: str = "auto"
) -> Predictor:
    """A predictor of a run folder or file.

    Args:
        path: our run folder or checkpoint, which carries its configuration, or an official file.
        composed: the configuration of an official file, see `recipe`.
        classes, device: see `Predictor`.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        select = config.read(file).schedule.select
        found = [file / name for name in ("best.pt", "last.pt") if (file / name).is_file()]
        if not found:
            raise UserError(f"{file} holds no checkpoint: nothing was trained there yet")
        file = found[0] if select == "best" else found[-1]
    content = load_file(file)
    stored = content.get("config")
    settings = config.from_dict(stored) if isinstance(stored, dict) else composed
    if settings is None:
        raise UserError(f"{path} does not say which network it is of; name its recipe, as in experiment=tsm_sthv2_8f")
    if classes is None and detect(tensors(content)) == "tsm_online":
        classes = JESTER
    return Predictor(settings, file, content, classes=classes, device=device)
