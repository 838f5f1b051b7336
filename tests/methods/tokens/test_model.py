"""The network of TokenFocus: what it computes, what it reads and what it counts."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from adafocus.backbones.features import features_of
from adafocus.backbones.tiny import tiny_glance
from adafocus.backbones.vit import ViT
from adafocus.core.frames import segment_centers
from adafocus.core.output import Overrides
from adafocus.evaluation.cost import count
from adafocus.methods.network import passed_exits
from adafocus.methods.tokens.credit import credit
from adafocus.methods.tokens.encoder import TokenEncoder
from adafocus.methods.tokens.model import TokenFocus


def network(*, glance: int = 3, candidates: int = 6, groups: int = 3, keep: float = 0.2) -> TokenFocus:
    torch.manual_seed(0)
    vit = ViT(32, patch_size=8, width=16, depth=2, num_heads=2)
    made = TokenFocus(
        tiny_glance((8, 8)),
        vit,
        num_classes=5,
        glance_segments=glance,
        candidates=candidates,
        frame_size=32,
        glance_size=16,
        glance_resize="area",
        policy_hidden=8,
        keep=keep,
        groups=groups,
    )
    for parameter in made.parameters():  # also what starts at zero: positions in time, the class token
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return made.eval()


def clips(batch: int = 4, frames: int = 6) -> Tensor:
    return torch.randn(batch, frames, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def patches(frames: Tensor) -> Tensor:
    """All patches (B, M, 3, 8, 8) of frames (B, T, 3, 32, 32), by a way of its own."""
    cut = [
        frames[:, t, :, y : y + 8, x : x + 8]
        for t in range(frames.shape[1])
        for y in range(0, 32, 8)
        for x in range(0, 32, 8)
    ]
    return torch.stack(cut, 1)


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "deit3_small_patch16_224", "vit_small_patch14_reg4_dinov2"],
)
def test_all_patches_of_a_frame_in_one_group_are_the_network_of_timm(name: str) -> None:
    """Positions, class and register tokens, layer scale and norms of three families."""
    timm = pytest.importorskip("timm")
    side = 28 if "14" in name else 32
    torch.manual_seed(0)
    vit = timm.create_model(name, img_size=side, dynamic_img_size=True, num_classes=0, depth=2).eval()
    for parameter in vit.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    images = torch.randn(2, 3, side, side)
    encoder = TokenEncoder(features_of(vit), 3).eval()
    size = encoder.patch_size
    cut = images.unflatten(-2, (-1, size)).unflatten(-1, (-1, size)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    cells = torch.arange(encoder.area).expand(2, -1)
    with torch.no_grad():
        found = encoder(cut, cells, [encoder.area]).features
        torch.testing.assert_close(found[:, 0], vit.forward_features(images)[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "beit_base_patch16_224", "swin_tiny_patch4_window7_224"])
def test_other_transformers_of_timm_are_refused(name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        vit = timm.create_model(name, num_classes=0)
    with pytest.raises(ValueError, match="not a plain vision transformer"):
        TokenEncoder(vit, 2)


def test_the_small_transformer_is_also_a_backbone() -> None:
    vit = ViT(32, patch_size=8, width=16, depth=2, num_heads=2).eval()
    images = torch.randn(2, 3, 32, 32)
    maps = vit(images)
    assert maps.shape == (2, 16, *vit.map_size(32))
    changed = images.clone()
    changed[:, :, 8:16, 16:24] += 1
    difference = (vit(changed) - maps).abs().amax((0, 1))
    assert difference.argmax() == 4 + 2 and difference.min() > 0


def test_permuted_tokens_answer_alike_and_moved_ones_do_not() -> None:
    model, frames = network(groups=1), clips()
    cells = torch.stack([torch.randperm(96)[:12] for _ in range(4)])
    glance = model.glance(model.first_frames(frames))

    def answer(cells: Tensor) -> Tensor:
        plan = model.decide(glance, Overrides(cells))
        return model.focus(model.focus_frames(frames, plan), plan, glance).logits

    order = torch.randperm(12)
    torch.testing.assert_close(answer(cells[:, order]), answer(cells))
    for step in (1, 4, 16):  # a column, a row and a frame further
        assert (answer((cells + step) % 96) - answer(cells)).abs().max() > 1e-3


def test_pixels_are_those_of_the_cells() -> None:
    model, frames = network(), clips()
    cells = torch.stack([torch.randperm(96)[:12] for _ in range(4)])
    plan = model.decide(model.glance(model.first_frames(frames)), Overrides(cells))
    chosen = model.focus_frames(frames, plan)
    time = cells // 16
    slots = torch.stack([torch.searchsorted(row.unique(), row) for row in time])
    expected = patches(frames)[torch.arange(4)[:, None], cells]
    assert torch.equal(model.patches(chosen, slots, cells), expected)
    for row, listed in zip(time, plan.frames, strict=True):
        assert listed.unique().tolist() == row.unique().tolist() and listed.tolist() == sorted(listed.tolist())


def test_answers_do_not_depend_on_the_other_clips() -> None:
    model, frames = network(), clips(8)
    whole = model(frames).exit_logits
    alone = torch.cat([model(frames[row : row + 1]).exit_logits for row in range(8)])
    torch.testing.assert_close(whole, alone, rtol=1e-5, atol=1e-5)


def test_one_network_serves_every_number_of_tokens() -> None:
    model, frames = network(), clips()
    costs = []
    for keep in (0.01, 0.1, 0.5, 1.0):
        model.keep = keep
        output = model(frames)
        assert output.frames.shape == (4, max(3, round(96 * keep)))
        costs.append(count(deepcopy(model).to("meta"), 6, 32).total)
    assert costs == sorted(costs) and costs[-1] > 5 * costs[0]


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("glance", [3, 6])
def test_clips_that_leave_early_answer_as_the_whole_network(chunk: int, glance: int) -> None:
    model, frames = network(glance=glance, keep=0.4), clips(6)
    expected = model(frames).exit_logits
    numbers = passed_exits(model.num_exits, chunk, glance_exit=True)
    leaves = torch.tensor([0, 1, 2, 2, 1, 2])  # clip -> the passed exit at which it leaves
    read: list[tuple[int, int]] = []

    rows = torch.arange(6)

    def reader(wanted: Tensor, of: Tensor) -> Tensor:
        clips = rows[of]
        read.extend(
            (int(row), int(frame)) for row, some in zip(clips, wanted, strict=True) for frame in set(some.tolist())
        )
        return frames[clips[:, None], wanted]

    state = {"frames": model.first_frames(frames)}
    with torch.no_grad():
        for place, number in enumerate(numbers):
            logits, state = model.step(place, state, reader, chunk)
            torch.testing.assert_close(logits, expected[rows, number], rtol=1e-4, atol=1e-5)
            stay = leaves[rows] > place
            rows, state = rows[stay], {name: value[stay] for name, value in state.items()}
            if not len(rows):
                break
    assert place >= 2
    assert len(read) == len(set(read)) and all(row != 0 for row, _ in read)  # each frame once, none after the glance
    plan = model.decide(model.glance(model.first_frames(frames)))
    for row in range(1, 6):
        groups = numbers[int(leaves[row])]
        tokens = plan.where[row, : sum(model.sizes(plan.where.shape[1])[:groups])]
        assert {frame for clip, frame in read if clip == row} == set((tokens // 16).tolist())


def test_counted_operations_are_those_of_the_exits() -> None:
    model = network(keep=0.3)
    cost = count(deepcopy(model).to("meta"), 6, 32)
    costs = model.exit_costs(cost)
    assert len(costs) == model.num_exits == 4
    assert costs[0] == cost.of("glance") and costs[-1] == cost.total


def test_credit_teaches_the_share_of_each_token() -> None:
    torch.manual_seed(0)
    tokens, scores = torch.randn(3, 4, 5, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    weights = torch.randn(3, 4, 5)
    same, zero = credit(tokens, scores)
    assert torch.equal(same, tokens) and torch.equal(zero, torch.zeros(3))
    (-(same * weights).sum() + 2 * zero.mean()).backward()
    assert torch.equal(tokens.grad, -weights)
    gain = (weights * tokens).sum(-1).clamp(min=0)
    loss = torch.nn.functional.cross_entropy(scores, (gain / gain.sum(1, keepdim=True)).detach())
    torch.testing.assert_close(scores.grad, 2 * torch.autograd.grad(loss, scores)[0])


def test_candidates_between_glance_frames_can_be_chosen() -> None:
    model = network(glance=3, candidates=6)
    assert model.first.tolist() == segment_centers(6, 3) == [1, 3, 5]
    cells = model.decide(model.glance(clips()[:, model.first])).where
    assert set((cells // 16).flatten().tolist()) - {1, 3, 5}


def test_what_does_not_fit_is_refused() -> None:
    vit = ViT(32, patch_size=8, width=16, depth=1, num_heads=2)
    shared = {"num_classes": 3, "glance_segments": 3, "candidates": 6}
    with pytest.raises(ValueError, match="do not make the 16 patches"):
        TokenFocus(tiny_glance(), vit, frame_size=48, **shared)
    with pytest.raises(ValueError, match="no multiple of 4"):
        TokenFocus(tiny_glance(), vit, frame_size=32, **{**shared, "glance_segments": 4})
    with pytest.raises(ValueError, match="not a plain vision transformer"):
        TokenFocus(tiny_glance(), tiny_glance(), frame_size=32, **shared)
    with pytest.raises(ValueError, match="must fill images"):
        ViT(30, patch_size=8)
