from __future__ import annotations

from pathlib import Path

import pytest

import adafocus
from adafocus import cli
from adafocus.config.compose import compose, quote_paths, typed_value
from adafocus.config.naming import check_name, distinct, folder_name, key_of, quote_numbers, shared_keys
from adafocus.core.errors import UserError, printable


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("patch=128", "patch='128'"),
        ("patch=96,128,160", "patch='96','128','160'"),
        ("segments=8,8+12,16+16", "segments='8',8+12,16+16"),
        ("stage=2", "stage='2'"),
        ("stage=joint", "stage=joint"),
        ("patch='128'", "patch='128'"),
        ("patch.size=128", "patch.size=128"),
        ("seed=1,2", "seed=1,2"),
        ("patch=choice(96,128)", "patch=choice('96','128')"),
        ("-m", "-m"),
        ("teacher=outputs/large", "teacher.checkpoint=outputs/large"),
    ],
)
def test_numeric_choices_are_quoted(typed: str, read: str) -> None:
    assert quote_numbers([typed]) == [read]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ([], "default"),
        (["patch='128'", "dataset=sthv2", "devices=4", "loader.workers=0"], "sthv2_patch-128"),
        (["dataset=folder", "dataset.root=../videos/yoga", "patch='24'"], "yoga_patch-24"),
        (["dataset.root=/g/gestures/", "experiment=small_tsm"], "gestures_small_tsm"),
        (["mode=early_exit", "checkpoint=outputs/yoga"], "yoga_early_exit"),
        (["mode=evaluate", "checkpoint='outputs/yoga'", "dataset.root=/x/new people"], "yoga_new-people_evaluate"),
        (["mode=evaluate", "checkpoint=outputs/yoga/last.pt"], "yoga+last_evaluate"),
        (["mode=evaluate", "checkpoint=multirun/s/patch-24"], "s+patch-24_evaluate"),
        (["patch.size=24", "schedule.lr=0.1", "schedule.epochs=3"], "patch-24_epochs-3_lr-0.1"),
        (["policy.epochs=2", "early_exit.chunk=0"], "chunk-0_policy.epochs-2"),
        (["schedule.lr_mults={glance:1,focus:2}"], "lr_mults-glance-1-focus-2"),
        (["patch='96','128'", "seed=range(0,3)"], "patch-96-128_seed-range-0-3"),
        (["dataset.crop_scales=[1,0.5]"], "crop_scales-1-0.5"),
        (["seed=-1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "seed--1"),
    ],
)
def test_folders_are_named_by_what_was_typed(typed: list[str], name: str) -> None:
    assert folder_name(typed) == name and folder_name(typed[::-1]) == name
    assert check_name(name) == name


def test_what_letters_cannot_tell_a_hash_tells() -> None:
    names = {folder_name([f"dataset.root={root}"]) for root in ("/видео", "/ビデオ", "/ü b", "/ä b", "/...", "/", "/'")}
    assert len(names) == 7 and all(check_name(name) for name in names)
    one, two = (folder_name(["mode=evaluate", f"checkpoint=/{place}/last.pt"]) for place in "ab")
    assert one != two


def test_long_names_are_cut_but_differ() -> None:
    names = {folder_name([f"key{i}={'x' * 30}" for i in range(8)] + [f"seed={seed}"]) for seed in (1, 2)}
    assert len(names) == 2 and all(len(name) <= 80 for name in names)


def test_jobs_over_folders_of_the_same_name_have_names_of_their_own() -> None:
    texts = distinct(["dataset.root=/a/yoga,/b/yoga,/c/dance", "patch='24','32'"])
    names = [folder_name([f"dataset.root={root}"], texts=texts) for root in ("/a/yoga", "/b/yoga", "/c/dance")]
    assert names == ["a+yoga", "b+yoga", "dance"]
    texts = distinct(["dataset.root=/x/a/yoga,/y/a/yoga"])
    assert len(set(texts.values())) == 2


@pytest.mark.parametrize(
    "name",
    ["../../x", "/abs", "..", ".", ".hidden", "a/b", "a b", "a=b", "a,b", "-m", "a\nb", "x\x1b[31m", "ä", "x" * 300],
)
def test_no_name_leaves_its_folder(name: str) -> None:
    with pytest.raises(UserError, match="cannot be a run's name") as caught:
        check_name(name)
    assert printable(caught.value) == str(caught.value)


@pytest.mark.parametrize("name", ["../../x", "/abs", "..", ".hidden", "a b", "a/b", "'a;b'"])
@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_a_name_outside_is_one_line(name: str, sweep: list[str], tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", *sweep, "seed=1", f"name={name}"]) == 2
    error = capfd.readouterr().err
    assert "cannot be a run's name" in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["-m", "patch="], "patch= names no option of patch"),
        (["-m", "seed=range(3,1)"], "seed=range(3,1) has no value"),
        (["-m", "name=a,b", "seed=1"], "all jobs of a sweep are in one folder"),
        (["patch=96,128"], "patch=96,128 has several values: add -m"),
        (["mode=evaluate", "checkpoint=outputs/a=b,c"], "checkpoint='outputs/a=b,c'"),
        (["mode=evaluate", "checkpoint=outputs/gone"], "checkpoint=outputs/gone: there is no such run folder or file"),
        (["-m", "mode=evaluate", "checkpoint=a,b"], "evaluate one at a time"),
    ],
)
def test_mistakes_of_sweeps_are_one_line(typed: list[str], said: str, tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", *typed]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ") and said.replace("'", "") in error.replace("'", "") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_paths_need_no_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folder names with commas, brackets, quotes or spaces can be typed as they are, names of older versions
    included."""
    monkeypatch.chdir(tmp_path)
    for name in ("outputs/dataset.root=yoga-86e9,dataset=folder", "[x]", "my videos (1)", "it's", "a,b"):
        Path(name).mkdir(parents=True)
        quoted = quote_paths([f"checkpoint={name}"])
        assert typed_value(quoted, "checkpoint") == name, quoted
        assert compose([*quoted, "mode=evaluate"]).checkpoint == name
    plain = ["seed=1,2", "-m", "patch=96", "schedule.milestones=[3]", "dataset.root=/nowhere,x", "checkpoint=~/x"]
    assert quote_paths(plain) == plain


def test_only_swept_keys_tell_jobs_apart() -> None:
    assert shared_keys(["patch='96','128'", "seed=1", "schedule.lr_mults={a:1,b:2}", "x=range(1,4)"]) == [
        "seed",
        "schedule.lr_mults",
    ]


def test_a_choice_that_all_jobs_share_does_not_hide_its_keys() -> None:
    """`-m dataset=folder dataset.fold=0,1`: the jobs differ in a key of the group that they share."""
    names = {folder_name(["dataset=folder", f"dataset.fold={fold}"], without=["dataset"]) for fold in (0, 1)}
    assert len(names) == 2


@pytest.mark.parametrize(
    "typed, found",
    [("logger=csv", ["csv"]), ("logger=[tensorboard,mlflow]", ["tensorboard", "mlflow"]), ("logger=[]", [])],
)
def test_logger_is_short_for_the_list_of_loggers(typed: str, found: list[str]) -> None:
    assert adafocus.compose("dataset=glyphs", typed).output.loggers == found
    assert key_of(typed) == "output.loggers"
