"""Tests of early exit: thresholds equal those of the released programs, and a real run gives the exits and logits of
the simulation while it reads fewer frames."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import golden_weights, runs
from helpers.configs import composed
from helpers.golden_cases import Case
from helpers.pretended import GPU, pretended_gpu, put_on_gpu
from helpers.steps import batch_of, settings_of

from adafocus import build, cli, config
from adafocus.core.batch import Batch, only
from adafocus.core.cost import CROP
from adafocus.evaluation import exits, queues
from adafocus.evaluation.cost import count
from adafocus.methods.adafocus_v2.model import AdaFocusV2
from adafocus.methods.network import GlanceExit, passed_exits
from adafocus.methods.tokens.model import TokenFocus
from adafocus.methods.uni_adafocus.model import UniAdaFocus
from adafocus.methods.uni_adafocus.model_tsm import UniAdaFocusTSM


def answers_of_v2(split: str, size: int) -> torch.Tensor:
    def array(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return golden_weights.array(f"adafocus_v2_early_exit/{split}/{name}", shape).clone()

    first = array("label", (size, 20)).argmax(1)
    other = array("label2", (size, 20))
    rows = torch.arange(size)
    other[rows, first] = -torch.inf
    second = torch.where(array("has_second", (size,)) > 1, other.argmax(1), -1)
    gain = torch.from_numpy((0.5 + 0.2 * np.arange(16)).astype(np.float32))
    logits = array("noise", (size, 16, 20))
    logits[rows, :, first] += gain
    both = second >= 0
    logits[rows[both], :, second[both]] += 0.5 * gain
    return logits


def answers_of_uni(split: str, size: int) -> torch.Tensor:
    name = f"uni_adafocus_early_exit/{split}"
    logits = golden_weights.array(f"{name}/base", (size, 1, 20)) + 0.3 * golden_weights.array(
        f"{name}/step", (size, 17, 20)
    )
    rows = torch.arange(size)
    logits[rows, :, rows % 20] += 0.5 + 0.15 * torch.arange(17, dtype=torch.float32)
    return logits


def answers_of_tsm(split: str, size: int) -> torch.Tensor:
    logits = golden_weights.array(f"uni_adafocus_tsm_early_exit/{split}_logits", (size, 2, 10)).clone()
    logits[:, 1] *= 1.6
    return logits


CASES = {
    "adafocus_v2": (AdaFocusV2, answers_of_v2, 500, 300),
    "uni_adafocus": (UniAdaFocus, answers_of_uni, 300, 240),
    "uni_adafocus_tsm": (UniAdaFocusTSM, answers_of_tsm, 300, 200),
}


def found(case: str, criterion: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Thresholds (Q, E) of Q budgets and E exits from training logits, and the exits (Q, N) of N validation clips."""
    network, answers, train, val = CASES[case]
    sure, other = (exits.certainty(answers(*split), criterion) for split in (("train", train), ("val", val)))
    shares = exits.wanted_shares(network.budgets, sure.shape[1], network.first_power)
    limits = torch.stack([exits.thresholds(sure, share) for share in shares])
    return limits, torch.stack([exits.exit_indices(other, limit) for limit in limits])


@pytest.mark.parametrize("criterion", exits.CRITERIA)
@pytest.mark.parametrize("case", CASES)
def test_thresholds_and_exits_of_the_released_programs(case: str, criterion: str) -> None:
    golden = Case(f"{case}_early_exit")
    limits, at = found(case, criterion)
    np.testing.assert_allclose(limits.numpy(), golden[f"{criterion}_thresholds"], rtol=1e-5, atol=1e-5)
    if case == "uni_adafocus_tsm":
        share = (at == 0).double().mean(1)
        golden.check(f"{criterion}_exit0_ratio", share, 1e-6, of=1.0)
    else:
        name = "exit_step" if case == "adafocus_v2" else "exit"
        golden.check(f"{criterion}_{name}", at, 0.0)


def test_entropy_where_the_released_code_gives_nan() -> None:
    logits = torch.tensor([[0.0, 300.0, -300.0], [1.0, 1.0, 1.0]])
    naive = logits.softmax(1) * logits.softmax(1).log()
    assert naive[0].isnan().any()
    sure = exits.certainty(logits, "entropy")
    assert sure[0].item() == 0.0 and sure[1].item() == pytest.approx(-np.log(3))


def test_an_answer_that_is_nan_leaves_at_the_end() -> None:
    sure = torch.tensor([[torch.nan, torch.nan], [5.0, 1.0]])
    assert exits.exit_indices(sure, torch.tensor([2.0, exits.ALWAYS])).tolist() == [1, 0]


def test_exits_that_a_walk_in_chunks_passes() -> None:
    assert passed_exits(17, 1, glance_exit=True) == list(range(17))
    assert passed_exits(17, 4, glance_exit=True) == [0, 4, 8, 12, 16]
    assert passed_exits(5, 3, glance_exit=True) == [0, 3, 4]
    assert passed_exits(16, 4, glance_exit=False) == [3, 7, 11, 15]
    assert passed_exits(4, 3, glance_exit=False) == [2, 3]


V2 = ("method=adafocus_v2", "segments.glance=5")
UNI = ("method=uni_adafocus", "segments.glance=4", "segments.focus=5")
TSM = (*UNI, "backbone=tiny_tsm")
TOKENS = ("method=tokens", "segments.glance=4", "segments.pool=8")
V2_TSM = ("method=adafocus_v2", "segments.glance=4", "segments.focus=5", "backbone=tiny_tsm")
V1 = ("method=adafocus_v1", "segments.glance=5", "stage=3")
V1_TSM = ("method=adafocus_v1", "segments.glance=4", "segments.focus=5", "backbone=tiny_tsm", "stage=3")
METHODS = {"v2": V2, "uni": UNI, "tsm": TSM, "tokens": TOKENS, "v2 tsm": V2_TSM, "v1": V1, "v1 tsm": V1_TSM}


def trained(*typed: str):
    """Settings, a stage whose logits differ between clips, its data with frames decoded on demand, and one batch."""
    from adafocus.data.loader import EvaluationOrder, Loader

    settings = composed("dataset=glyphs", "mode=early_exit", "checkpoint=x", "dataset.val_videos=12", *typed)
    settings = config.for_stage(settings, settings.stage.name)
    data = build.data(settings)
    torch.manual_seed(0)
    model = build.model(settings, 10)
    for layer in model.modules():  # as after training: small variances make clips differ
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.running_var.uniform_(0.01, 0.1)
    stage = build.stage(settings, model)
    batch = next(iter(Loader(data.test, EvaluationOrder(12, 12))))
    return settings, stage, data, batch


def whole_batch(data, batch: Batch) -> Batch:
    frames = torch.stack([data.test[0, int(index)].frames for index in batch.index])
    return Batch(frames, batch.labels, batch.index, batch.epoch, torch.ones(len(batch), dtype=torch.bool))


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_a_run_equals_the_simulation_and_reads_no_more(name: str, chunk: int) -> None:
    settings, stage, data, batch = trained(*METHODS[name])
    model = stage.model
    simulated = stage.exit_logits(whole_batch(data, batch))
    numbers = passed_exits(model.num_exits, chunk, glance_exit=model.glance_exit)
    sure = exits.certainty(simulated[:, numbers])
    share = torch.full((len(numbers),), 1 / len(numbers))
    limits = exits.thresholds(sure, share)
    at = exits.exit_indices(sure, limits)
    assert len(at.unique()) == len(numbers)  # every exit is taken by some clip
    # The clips that determine a threshold lie exactly on it, so rounding would decide about them.
    limits = limits - 1e-5 * limits.abs().clamp(max=1e3)
    asked: list[tuple[list[int], int]] = []
    source = batch.source

    def reading(index: list[int], candidates: torch.Tensor):
        asked.append((index, candidates.shape[1]))
        return source(index, candidates)

    batch.source = reading
    steps, step = [], model.step
    model.step = lambda *arguments: (steps.append((arguments[0], arguments[2].args[0])), step(*arguments))[1]
    parts = [only(batch, rows) for rows in torch.arange(12).split(4)]
    left = queues.exit_early(stage, parts, limits, numbers, "confidence", chunk, 4)
    assert left.exits.tolist() == [numbers[place] for place in at.tolist()]
    expected = simulated[torch.arange(12), left.exits]
    torch.testing.assert_close(left.logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    for place in range(len(numbers)):  # survivors of the three batches are gathered
        alive = int((at >= place).sum())
        assert sum(number == place for number, _ in steps) == -(-alive // 4)
    read = {int(index): sum(n for rows, n in asked if int(index) in rows) for index in batch.index}
    for clip, number in zip(batch.index.tolist(), left.exits.tolist(), strict=True):
        if isinstance(model, GlanceExit):
            assert read[clip] == (5 if number else 0)
        elif isinstance(model, TokenFocus):
            assert bool(read[clip]) <= bool(number)  # tests/methods/tokens has the frames of each exit
        else:
            assert read[clip] == number  # the first frame or the glance frames come with the batch


def test_survivors_of_many_batches_share_steps_and_let_go_of_the_others() -> None:
    settings, stage, data, batch = trained(*V2)
    whole = whole_batch(data, batch)
    simulated = stage.exit_logits(whole)
    limits = exits.thresholds(exits.certainty(simulated), torch.tensor([0.75, 0, 0, 0, 0.25]))
    limits[0] -= 1e-5 * limits[0].abs()  # the clip that determines it lies exactly on it
    held: list[int] = []
    step = stage.model.step

    def counted(number: int, state: dict, read, chunk: int):
        held.append(sum(len(part) for part, _ in read.func.__self__.sources))
        return step(number, state, read, chunk)

    stage.model.step = counted
    parts = [only(whole, rows) for rows in torch.arange(12).split(3)]
    left = queues.exit_early(stage, parts, limits, range(5), "confidence", 1, 3)
    assert sorted(left.exits.tolist()) == [0] * 9 + [4] * 3
    assert len(held) == 4 + 4 * 1  # four batches at the first exit; then one step each for the three that stay
    assert max(held[4:]) < 12  # frames of clips that are gone are not kept for the last ones


@pytest.mark.parametrize("name", ["v2", "uni"])
def test_a_step_waits_for_the_device_once(name: str) -> None:
    settings = settings_of(name)
    network = build.seeded_model(settings, 10, weights=False)
    stage, batch = build.stage(settings, network), batch_of(settings, 4)
    with pretended_gpu() as waits:
        put_on_gpu(network)
        on_gpu = replace(batch, frames=batch.frames.to(GPU, non_blocking=True))
        numbers = passed_exits(network.num_exits, 1, glance_exit=network.glance_exit)
        limits = torch.full((len(numbers),), exits.NEVER).to(GPU, non_blocking=True)
        for _ in range(2):  # the first time brings constants to the device
            waits.clear()
            gone = list(queues.exit_stream(stage, [on_gpu], limits, numbers, "confidence", 1, 4))
        assert [part.number for part in gone] == [numbers[-1]]
        assert sum(waits.values()) == len(numbers) - 1, waits


@pytest.mark.parametrize("name", METHODS)
def test_costs_of_the_exits(name: str) -> None:
    settings = composed("dataset=glyphs", *METHODS[name], *(["init.from=none"] if "stage=3" in METHODS[name] else []))
    with torch.device("meta"):
        model = build.model(settings, 10, weights=False)
    cost = count(model, build.frame_plan(settings).clip, 96)
    costs = model.exit_costs(cost)
    assert len(costs) == model.num_exits and costs == sorted(costs)
    if isinstance(model, GlanceExit) and name != "v1 tsm":  # early exit also computes the logits of the first exit
        assert costs[-1] == cost.total + cost.of("glance", auxiliary=True)
        assert costs[0] == cost.of("glance") + 2 * cost.of("glance", auxiliary=True)
    else:
        assert abs(costs[-1] - cost.total) <= 1


def test_the_seeds_table_of_costs() -> None:
    """Costs of Uni-AdaFocus' exits equal the table of LeapLabTHU/Uni-AdaFocus, which counts BatchNorm as well:
    4.8892 G after the glance, 7.0605 G after one patch, 27.22998 G at the end."""
    settings = composed("experiment=uni_adafocus_actnet_p128", "dataset.root=/data")
    with torch.device("meta"):
        model = build.model(settings, 200, weights=False)
    cost = count(model, build.frame_plan(settings).clip, 224)
    cost = replace(cost, parts={**cost.parts, CROP: 0})
    costs = [each / 1e9 for each in model.exit_costs(cost)]
    idle = 15 * 4096 * 200 / 1e9  # the table counts all 16 glance heads, of which early exit needs one
    assert costs[0] + idle == pytest.approx(4.8892, abs=3e-4)
    assert costs[1] + idle == pytest.approx(7.0605, abs=5e-4)
    assert costs[16] + idle == pytest.approx(27.22998, abs=1e-3)


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    typed = runs.arguments(method="uni_adafocus", segments__focus="2", patch__smallest="8")
    runs.run(tmp_path, *typed, "name=a")
    runs.run(tmp_path, *runs.arguments(method="recognizer"), "name=frames")
    text = runs.run(
        tmp_path,
        "mode=early_exit",
        "checkpoint=outputs/a",
        "name=b",
        "early_exit.runs=5",
        "early_exit.baseline=outputs/frames",
    )
    folder = tmp_path / "outputs/b"
    report = json.loads((folder / "early_exit.json").read_text())
    rows = report["rows"]
    assert [row["name"] for row in rows[:2]] == ["full model", "whole frames"]
    assert sum(row["name"] == "confidence" for row in rows) == sum(row["name"] == "entropy" for row in rows) == 19
    run = [row for row in rows if row["score"] is not None and row["budget"] is not None]
    assert len(run) == 5 and all(row["score"] == row["simulated"] and row["differing"] == 0 for row in run)
    assert run[0]["cost"] < rows[0]["cost"] and all(row["seconds"] > row["networks"] > 0 for row in run)
    table = list(csv.DictReader((folder / "early_exit.csv").open()))
    assert len(table) == len(rows) and table[0]["name"] == "full model"
    assert (folder / "early_exit.png").stat().st_size > 10000 and "0 videos differ" in text
    summary = runs.summary(folder)
    assert summary["score"] == rows[0]["score"] and len(summary["rows"]) == 7
    assert cli.main(["compare", str(folder), str(tmp_path / "outputs/a"), "--mix-protocols"]) == 0


@pytest.mark.slow
def test_videos_that_cannot_be_read_are_named_and_count_as_wrong(tmp_path: Path) -> None:
    from helpers import numbered

    for split, clips in (("train", 3), ("val", 2)):
        for label in "ab":
            (tmp_path / f"videos/{split}/{label}").mkdir(parents=True)
            for number in range(clips):
                numbered.write(tmp_path / f"videos/{split}/{label}/{number}.mp4", 12)
    (tmp_path / "videos/val/a/page.mp4").write_text("<html>")
    typed = ["dataset=folder", "dataset.root=videos", "dataset.frame_size=32", "patch.size=16", "segments.glance=2"]
    small = ["schedule.epochs=1", "schedule.batch_size=4", "loader.workers=0", "device=cpu", "output.loggers=[]"]
    runs.run(tmp_path, *typed, *small, "name=a")
    runs.run(tmp_path, "mode=early_exit", "checkpoint=outputs/a", "name=b", "early_exit.runs=2", "loader.workers=0")
    found = runs.summary(tmp_path / "outputs/b")
    assert list(found["unreadable"]["evaluate"]) == ["val/a/page.mp4"] and found["score"] <= 80.0
