from __future__ import annotations

import pytest
import torch

from adafocus.backbones import BACKBONES
from adafocus.core.cost import CROP, Part
from adafocus.evaluation.cost import count
from adafocus.methods.adafocus_v2.model import AdaFocusV2
from adafocus.methods.recognizer.model import Recognizer

#: Multiply-adds per frame by glance network and patch size (AdaFocus V2 with 200 classes and 16 frames).
#: The paper prints 17.6 to 46.1 G per video.
PUBLISHED = {
    ("mobilenet_v2", 96): 1_100_915_584,
    ("mobilenet_v2", 128): 1_684_792_192,
    ("mobilenet_v2", 160): 2_435_490_688,
    ("mobilenet_v2", 192): 3_353_011_072,
    ("resnet50", 96): 1_547_341_824,
    ("resnet50", 128): 2_131_218_432,
    ("resnet50", 160): 2_881_916_928,
}


def network(glance: str, patch: int, classes: int = 200) -> AdaFocusV2:
    with torch.device("meta"):
        return AdaFocusV2(
            BACKBONES[glance](),
            BACKBONES["resnet50"](),
            num_classes=classes,
            segments=16,
            patch_size=patch,
            glance_size=96 if glance == "resnet50" else None,
        )


@pytest.mark.parametrize(("glance", "patch"), PUBLISHED)
def test_every_published_figure_to_the_last_operation(glance: str, patch: int) -> None:
    cost = count(network(glance, patch), 16, 224)
    assert cost.published == 16 * PUBLISHED[glance, patch]
    assert cost.published == sum(value for part, value in cost.parts.items() if part != CROP)
    assert cost.of("crop") == 16 * 3 * patch * patch * 4


def test_the_true_cost_has_no_auxiliary_heads_and_the_crop() -> None:
    cost = count(network("mobilenet_v2", 128), 16, 224)
    heads = 16 * (1280 + 2048) * 200
    assert cost.total == cost.published - heads + cost.of("crop")


def test_whole_frames_are_the_backbone_and_its_head() -> None:
    with torch.device("meta"):
        model = Recognizer(BACKBONES["resnet50"](), num_classes=400, segments=8)
    cost = count(model, 8, 224)
    assert cost.as_dict()["parts"] == {"focus": 8 * 4_087_136_256, "head": 8 * 2048 * 400}


def test_a_part_that_nobody_names_is_noticed() -> None:
    with torch.device("meta"):
        model = Recognizer(BACKBONES["resnet18"](), num_classes=4, segments=2)
    model.parts = (Part("head", ("head",)),)
    with pytest.raises(RuntimeError, match="parts names"):
        count(model, 2, 64)
