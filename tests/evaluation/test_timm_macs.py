"""Multiply-adds of networks of timm against the figures that timm publishes.

Source of MACS: huggingface/pytorch-image-models, results/benchmark-infer-amp-nchw-pt291-cu128-4090.csv, columns model,
infer_img_size and infer_gmacs. timm counts with fvcore, classifier included, after it has merged the branches of
networks that can be reparameterized (RepViT, TinyViT, FastViT).
"""

from __future__ import annotations

import pytest
import torch

from adafocus.backbones import library
from adafocus.evaluation.cost import count, multiply_adds
from adafocus.methods.recognizer.model import Recognizer

#: Name, side of the images, and timm's GMACs.
MACS = [
    ("mobilenetv4_conv_small", 224, 0.19),
    ("mobilenetv4_conv_medium", 256, 1.10),
    ("mobilenetv4_hybrid_medium", 256, 1.29),
    ("mobilenetv3_large_100", 224, 0.23),
    ("mobilenetv2_100", 224, 0.31),
    ("efficientnet_b0", 224, 0.40),
    ("tf_efficientnetv2_b0", 224, 0.73),
    ("resnet18", 224, 1.82),
    ("resnet50", 224, 4.11),
    ("convnext_atto", 224, 0.55),
    ("convnext_tiny", 224, 4.47),
    ("convnextv2_pico", 224, 1.37),
    ("regnety_016", 224, 1.63),
    ("regnetx_008", 224, 0.81),
    ("repvit_m0_9", 224, 0.82),
    ("repvit_m1_1", 224, 1.34),
    ("tiny_vit_11m_224", 224, 2.03),
    ("fastvit_t8", 256, 0.69),
    ("vit_tiny_patch16_224", 224, 1.26),
    ("deit_small_patch16_224", 224, 4.61),
]


@pytest.mark.parametrize(("name", "size", "gmacs"), MACS)
def test_twenty_networks_to_the_printed_digit(name: str, size: int, gmacs: float) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        whole = timm.utils.reparameterize_model(timm.create_model(name).eval())
        assert round(multiply_adds(whole, torch.empty(1, 3, size, size), like_fvcore=True) / 1e9, 2) == gmacs


def test_a_backbone_costs_its_network_without_the_head_and_without_normalization() -> None:
    """What `count` says of a backbone, and where the rest of the published figure is."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        whole, image = timm.create_model("resnet50").eval(), torch.empty(1, 3, 224, 224)
        model = Recognizer(library.network("timm/resnet50", 224), num_classes=1000, segments=1)
    parts = {str(part): macs for part, macs in count(model, 1, 224).parts.items() if macs}
    assert parts == {"focus": 4_087_136_256, "head": 2048 * 1000}
    assert multiply_adds(whole, image) == sum(parts.values())
    normalized = 11_113_984  # values that its BatchNorms write: 112^2 64 + 56^2 (...) + ... of one image
    assert multiply_adds(whole, image, like_fvcore=True) - multiply_adds(whole, image) == 2 * normalized
