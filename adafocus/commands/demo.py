"""`adafocus demo`: a page on this machine where one drops a video or uses the camera and sees what networks say.

The page needs gradio (the extra `demo`). It is served to this machine only, unless --host says otherwise; nothing is
sent anywhere, no link is shared, and a video that is dropped is read as data like any other.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adafocus.core.arguments import ArgumentParser
from adafocus.core.errors import UserError, printable

TOP = 5  # labels that are shown
SURE = 0.9  # probability at which a video exits early, until somebody moves the slider
#: gradio sends statistics and asks for newer versions unless these are set before it is imported.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_SHARE": "False"}


@dataclass(frozen=True)
class Look:
    """What a network says of a video.

    Attributes:
        scores: the most probable labels with their probabilities.
        picture: (H, W, 3) uint8, the frames that it looked at in temporal order with the patches drawn in; None if the
            prediction is a mean over several clips.
        lines: cost, seconds and exit, one fact each.
    """

    scores: dict[str, float]
    picture: Any
    lines: list[str]


def look(predictor: Any, video: str | Path, sure: float = SURE) -> Look:
    """Predicts a video file with a `Predictor`.

    Args:
        predictor: the network.
        video: the file.
        sure: probability at which a video leaves a network that can exit early.

    Raises:
        UserError: the video cannot be read.
    """
    prediction = predictor(video)
    scores = dict(list(zip(prediction.labels, prediction.scores, strict=True))[:TOP])
    lines = [f"{prediction.cost / 1e6:.1f} M multiply-adds, {prediction.seconds:.2f} s"]
    picture = None
    if prediction.frames:
        import numpy as np
        from PIL import Image

        from adafocus.commands.drawing import draw

        with tempfile.TemporaryDirectory() as folder:
            picture = np.asarray(Image.open(draw(prediction, Path(folder) / "looked.png")).convert("RGB"))
        lines.append(f"frames {', '.join(map(str, dict.fromkeys(prediction.frames)))}")
    if (told := exit_line(predictor, video, sure)) is not None:
        lines.append(told)
    return Look(scores, picture, lines)


def exit_line(predictor: Any, video: str | Path, sure: float) -> str | None:
    """At which exit a video would leave the network, and what that costs; None for networks without early exit."""
    import torch

    from adafocus import build
    from adafocus.data.annotations import Record
    from adafocus.data.dataset import VideoClips
    from adafocus.data.loader import EvaluationOrder, Loader
    from adafocus.methods.network import EarlyExitNetwork

    view, model, dataset = predictor.view(), predictor.model, predictor.settings.dataset
    if not isinstance(model, EarlyExitNetwork) or view.views > 1:
        return None
    path = Path(video).absolute()
    clips = VideoClips([Record(path.name, (0,))], path.parent, view, seed=0, reader=dataset.reader)
    (batch,) = Loader(clips, EvaluationOrder(1, 1))
    probabilities = predictor.stage.exit_logits(batch.to(predictor.device))[0].float().softmax(1)
    enough = (probabilities.amax(1) >= sure).tolist()
    place = enough.index(True) if True in enough else len(enough) - 1
    cost = model.exit_costs(build.cost(predictor.settings, len(predictor.classes)))[place]
    label = predictor.classes[int(torch.argmax(probabilities[place]))]
    return (
        f"with early exit at {100 * sure:.0f} %: exit {place + 1} of {len(enough)}, {label}, "
        f"{cost / 1e6:.1f} M multiply-adds"
    )


def page(predictors: dict[str, Any]) -> Any:
    """The page, a `gradio.Blocks`, for predictors by name.

    Raises:
        UserError: gradio is not installed.
    """
    os.environ.update(QUIET)
    try:
        import gradio as gr
    except ImportError as error:
        raise UserError('`adafocus demo` needs gradio: pip install "adafocus[demo]"') from error

    def answer(video: str | None, sure: float) -> list[Any]:
        if video is None:
            raise gr.Error("drop a video first, or record one")
        found: list[Any] = []
        for predictor in predictors.values():
            try:
                seen = look(predictor, video, sure)
            except UserError as error:
                raise gr.Error(printable(str(error).replace(video, "the video"))) from error
            found += [seen.scores, seen.picture, "\n".join(f"- {printable(line)}" for line in seen.lines)]
        return found

    with gr.Blocks(analytics_enabled=False, title="adafocus", delete_cache=(3600, 3600)) as blocks:
        gr.Markdown("# adafocus\nDrop a video, or record one. It stays on the machine that serves this page.")
        with gr.Row():
            video = gr.Video(sources=["upload", "webcam"], include_audio=False, label="Video", height=280)
            sure = gr.Slider(0.5, 1.0, SURE, step=0.01, label="Probability at which a video exits early")
        button = gr.Button("Look", variant="primary")
        outputs: list[Any] = []
        with gr.Row():
            for name in predictors:
                with gr.Column(min_width=320):
                    gr.Markdown(f"## {name}")
                    outputs.append(gr.Label(num_top_classes=TOP, label="Labels"))
                    outputs.append(gr.Image(label="Where it looked, over time", buttons=["download", "fullscreen"]))
                    outputs.append(gr.Markdown())
        gr.on([button.click, video.change], answer, [video, sure], outputs, api_visibility="private")
    return blocks


def serve(blocks: Any, host: str, port: int | None, *, wait: bool = True) -> str:
    """Serves a page and returns its address; with `wait` only after Ctrl-C."""
    import gradio as gr

    plain = ["system-ui", "sans-serif"]  # the fonts of gradio's themes would be fetched from Google
    theme = gr.themes.Base(font=plain, font_mono=["ui-monospace", "monospace"])
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=not wait,
        prevent_thread_lock=not wait,
        enable_monitoring=False,
        ssr_mode=False,
        footer_links=[],
        theme=theme,
    )
    return str(address)


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    options = _parse(argv)
    page({})  # without gradio it ends before the networks are read
    from adafocus import predict
    from adafocus.core import plugins

    plugins.load(options.plugins)
    predictors = {printable(str(run)): predict.load(run, device=options.device) for run in options.runs}
    serve(page(predictors), options.host, options.port)
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = ArgumentParser(prog="adafocus demo", description="A page to try networks on a video or the camera.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders or checkpoints, shown side by side")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to serve at (default 127.0.0.1: this machine only)"
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--plugins", action="append", default=[], metavar="NAME", help="a module or .py file to import; may be repeated"
    )
    return parser.parse_args(argv)
