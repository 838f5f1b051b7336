"""Tests of streaming recognition: it equals the released model and the network on clips, and keeps its state
apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import golden_weights
from helpers.golden_cases import Case
from helpers.official import official_key

from adafocus.backbones import BACKBONES
from adafocus.backbones.temporal import Temporal, insert
from adafocus.checkpoints import load_checkpoint
from adafocus.data.labels import JESTER, JESTER_SMOOTHING
from adafocus.methods.network import Network
from adafocus.methods.recognizer.model import Recognizer, running_mean
from adafocus.methods.recognizer.online import OnlineRecognizer, Smoothing, restart

GOLDEN = Case("tsm_online_mobilenetv2")


def network(
    backbone: str = "tiny_focus", temporal: Temporal | None = None, classes: int = 5, segments: int = 6
) -> Recognizer:
    torch.manual_seed(0)
    net = insert(BACKBONES[backbone](), segments, Temporal("online", div=4) if temporal is None else temporal)
    return Recognizer(net, num_classes=classes, segments=segments).eval()


def official(tmp_path: Path) -> Recognizer:
    """Our online TSM with weights from a file in the layout of the released one: a state dictionary without prefixes or
    keys of the shift."""
    model = network("mobilenet_v2", Temporal("online"), 27, 8)
    names = set()
    for key in model.state_dict():
        name = official_key(key, "mobilenet").removeprefix("module.").removeprefix("base_model.")
        names.add(name.replace(".net.", ".").replace("new_fc.", "classifier."))
    state = GOLDEN.state()
    assert names == state.keys()
    torch.save(state, tmp_path / "mobilenetv2_jester_online.pth.tar")
    assert load_checkpoint(tmp_path / "mobilenetv2_jester_online.pth.tar", model).source == "official online TSM"
    return model


def test_the_released_model_frame_by_frame(tmp_path: Path) -> None:
    model = official(tmp_path)
    online = OnlineRecognizer(model).eval()
    frames = golden_weights.frames("tsm:online", GOLDEN.about["inputs"]["tsm:online"]["shape"])
    caches = online.start(1, 224)
    assert [tuple(c.shape[1:]) for c in caches] == [
        *[(3, 56, 56)],
        *[(4, 28, 28)] * 2,
        *[(8, 14, 14)] * 3,
        *[(12, 14, 14)] * 2,
        *[(20, 7, 7)] * 2,
    ]
    scores = []
    with torch.no_grad():
        for number, frame in enumerate(frames):
            output = online(frame[None], caches)
            caches = output.caches
            scores.append(output.logits[0])
            spread = torch.tensor([[c.mean(), c.std()] for c in caches])
            assert torch.allclose(spread, torch.from_numpy(GOLDEN["cache_mean_std"][number]), atol=1e-4)
        clip = model(frames[None]).per_frame[0]
    GOLDEN.check("logits", torch.stack(scores))
    assert torch.allclose(torch.stack(scores), clip, atol=1e-5 * float(clip.abs().max()))


@pytest.mark.parametrize("backbone", ["tiny_focus", "resnet18", "mobilenet_v2"])
def test_streams_equal_clips(backbone: str) -> None:
    model = network(backbone).double()
    online = OnlineRecognizer(model)
    clips = torch.randn(3, 6, 3, 64, 64, dtype=torch.float64)
    caches = online.start(3, 64)
    with torch.no_grad():
        expected = model(clips).per_frame
        for t in range(6):
            output = online(clips[:, t], caches)
            caches = output.caches
            assert torch.allclose(output.logits, expected[:, t], atol=1e-12)
        assert torch.allclose(model(clips).per_frame, expected)  # streaming has left no state in the network


def test_streams_without_background_equal_clips_on_the_frames_so_far() -> None:
    """With background removal, which subtracts the mean of the frames so far, each frame of a stream has the logits
    that it has in a clip."""
    model = network().double()
    model.remove_background = model.causal = True
    online = OnlineRecognizer(model)
    clips = torch.randn(2, 6, 3, 32, 32, dtype=torch.float64) + 3
    for t in range(6):
        assert torch.allclose(running_mean(clips)[:, t], clips[:, : t + 1].mean(1))
    caches = online.start(2, 32)
    assert float(caches[-1].sum()) == 0
    with torch.no_grad():
        expected = model(clips).per_frame
        for t in range(6):
            output = online(clips[:, t], caches)
            caches = output.caches
            assert torch.allclose(output.logits, expected[:, t], atol=1e-12)
        assert not torch.allclose(expected[:, 3], model(clips.flip(1)).per_frame[:, 2])
        anew = online(clips[:, 0], restart(caches, [1])).logits
        assert torch.allclose(anew[1], expected[1, 0], atol=1e-12)
        assert not torch.allclose(anew[0], expected[0, 0], atol=1e-3)


def test_why_a_network_is_no_stream() -> None:
    assert network().why_no_stream() is None
    for temporal, says in (
        (Temporal(), "nothing in it joins frames"),
        (Temporal("bidirectional", div=4), "the frame after"),
        (Temporal("online", div=4, adaptive=True), "backbone.adaptive=false"),
    ):
        assert says in network(temporal=temporal).why_no_stream()
    model = network()
    model.remove_background = True
    assert "mean of the whole clip" in model.why_no_stream()
    model = network()
    model.change = True
    assert "compares all frames" in model.why_no_stream()
    assert "method=recognizer" in Network().why_no_stream()


def test_caches_can_be_saved_and_a_stream_can_start_anew(tmp_path: Path) -> None:
    online = OnlineRecognizer(network().double())
    clips = torch.randn(2, 4, 3, 32, 32, dtype=torch.float64)
    start = caches = online.start(2, 32)
    with torch.no_grad():
        for t in range(2):
            caches = online(clips[:, t], caches).caches
        torch.save(caches, tmp_path / "stream.pt")
        going_on = online(clips[:, 2], torch.load(tmp_path / "stream.pt", weights_only=True)).logits
        assert torch.equal(going_on, online(clips[:, 2], caches).logits)
        mixed = online(clips[:, 2], restart(caches, [1])).logits
        assert torch.equal(mixed[0], going_on[0])
        assert torch.allclose(mixed[1], online(clips[:, 2], start).logits[1], atol=1e-14)
    with pytest.raises(ValueError, match="start"):
        online(clips[:, 0], caches[:1])


@pytest.mark.parametrize(
    "temporal",
    [Temporal(), Temporal("bidirectional", div=4), Temporal(adaptive=True), Temporal("online", adaptive=True)],
)
def test_models_that_see_the_future_are_no_stream(temporal: Temporal) -> None:
    with pytest.raises(ValueError, match="frame by frame"):
        OnlineRecognizer(network(temporal=temporal))


def test_smoothing_of_the_demo() -> None:
    golden = Case("tsm_online_postprocess")
    classes = golden_weights.array("tsm:demo:classes", (200, 27))
    latent = golden_weights.array("tsm:demo:latent", (20, 27)).repeat_interleave(10, 0)
    smooth = Smoothing(**JESTER_SMOOTHING)
    assert [smooth(frame) for frame in classes + 3 * latent] == golden["final"].tolist()
    drawn = ((golden_weights.array("tsm:demo:seq", (300,)).abs() * 1000).long() % 27).tolist()
    smooth = Smoothing(**JESTER_SMOOTHING)
    sequence = [drawn[i] if i % 4 == 1 else drawn[i // 3] for i in range(300)]
    assert [smooth.show(label) for label in sequence] == golden["index_final"].tolist()


def test_smoothing_on_paper() -> None:
    assert len(JESTER) == 27 and JESTER[2] == "No gesture"
    smooth = Smoothing(ignored=[3], replaced={0: 2}, rest=2)
    assert [smooth.show(label) for label in (5, 6, 6, 6, 3, 0, 0)] == [5, 5, 6, 6, 6, 2, 2]
    smooth = Smoothing(window=2)
    scores = torch.eye(4)
    assert [smooth(scores[label] * weight) for label, weight in ((1, 1.0), (3, 5.0), (1, 1.0), (1, 1.0))] == [
        1,
        3,
        3,
        1,
    ]
