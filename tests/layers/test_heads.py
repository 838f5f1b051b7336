"""How the features of a clip's frames are joined."""

from __future__ import annotations

import torch

from adafocus.backbones import BACKBONES
from adafocus.layers.heads import change_features
from adafocus.methods.recognizer.model import Recognizer


def test_change_is_the_mean_difference_of_frames_and_of_halves() -> None:
    features = torch.tensor([[[0.0], [3.0], [1.0], [1.0], [5.0]]])
    torch.testing.assert_close(change_features(features), torch.tensor([[2.0, 9 / 4, 3.0 - 1.5]]))
    torch.testing.assert_close(change_features(features[:, :1] + 2), torch.tensor([[2.0, 0.0, 0.0]]))


def test_it_stays_in_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert change_features(torch.rand(2, 4, 3, dtype=torch.bfloat16)).dtype == torch.float32


def test_with_it_the_order_of_frames_matters_without_temporal_modules() -> None:
    torch.manual_seed(0)
    frames = torch.rand(2, 6, 3, 16, 16)
    for consensus, differs in (("average", False), ("change", True)):
        network = Recognizer(BACKBONES["tiny_focus"](), num_classes=3, segments=6, consensus=consensus).eval()
        torch.nn.init.normal_(network.head.weight)
        with torch.no_grad():
            same = torch.allclose(network(frames).logits, network(frames.flip(1)).logits, atol=1e-5)
        assert same != differs
