"""Tests of plug-ins: which modules are imported, which are not, and what a plug-in may register."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import runs
from torch import nn

import adafocus
from adafocus import build, cli, config
from adafocus.backbones import BACKBONES, features_of
from adafocus.build_data import data
from adafocus.config.compose import compose
from adafocus.core import choices, plugins, registry
from adafocus.core.errors import UserError
from adafocus.methods import METHODS, STAGES
from adafocus.methods.recognizer.method import RecognizerMethod


@pytest.fixture(autouse=True)
def as_before(monkeypatch, tmp_path: Path):
    """Undoes what a test imports and registers."""
    tables = (
        plugins.LOADED,
        registry.BACKBONES,
        registry.DATASETS,
        registry.POLICIES,
        registry.LOGGERS,
        METHODS,
        STAGES,
    )
    before, modules = [dict(table) for table in tables], set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)
    for name in set(sys.modules) - modules:
        if name.startswith(("mine", "adafocus_plugin")):
            del sys.modules[name]


def test_a_module_of_the_current_folder_and_a_file_are_imported_once(tmp_path: Path) -> None:
    (tmp_path / "mine_module.py").write_text("TIMES = [1]\n")
    (tmp_path / "mine file.py").write_text("TIMES = [1]\n")
    for _ in range(2):
        plugins.load(["mine_module", "mine file.py"])
    assert plugins.LOADED["mine_module"] is sys.modules["mine_module"]
    assert plugins.LOADED["mine file.py"].TIMES == [1]
    plugins.require(["mine_module", "/elsewhere/mine file.py"], "a run")


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("plugins=[mine_missing]", "there is no module 'mine_missing'"),
        ("plugins=[mine_missing.part]", "there is no module 'mine_missing'"),
        ("plugins=[mine.py]", "there is no such file"),
        ("plugins=['a b']", "must be the dotted name of a module or a .py file"),
        ("plugins=['..os']", "must be the dotted name of a module or a .py file"),
        ("plugins=mine", "must be a list"),
    ],
)
def test_a_plugin_that_is_not_there_is_one_line(typed: str, says: str, capsys) -> None:
    assert cli.run([typed]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_an_error_in_a_plugin_keeps_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "mine_broken.py").write_text("import mine_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="mine_not_there"):
        plugins.load(["mine_broken"])


def test_an_installed_entry_point_is_imported_and_a_second_process_needs_no_word(tmp_path: Path) -> None:
    (tmp_path / "mine_installed.py").write_text("import adafocus\nadafocus.register_backbone('mine', object)\n")
    about = tmp_path / "mine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[adafocus.plugins]\nmine = mine_installed\n")
    code = (
        "import sys; from adafocus.core import plugins, registry; plugins.load(); "
        "plugins.require(['mine_installed'], 'x'); print(list(registry.BACKBONES), 'torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=runs.environment(), capture_output=True, text=True, check=True
    )
    assert found.stdout == "['mine'] False\n"


def test_a_strangers_folder_imports_nothing(tmp_path: Path, capsys) -> None:
    """Loading an untrusted run folder or checkpoint imports no plug-in that its configuration or its overrides name."""
    (tmp_path / "mine_evil.py").write_text("raise SystemExit('imported')\n")
    folder = tmp_path / "run"
    folder.mkdir()
    values = config.to_dict(compose(["method=recognizer"])) | {"plugins": ["mine_evil"]}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "overrides.json").write_text(json.dumps(["plugins=[mine_evil]"]))
    torch.save({"model": {}, "config": values, "overrides": ["plugins=[mine_evil]"]}, folder / "last.pt")
    for place in (folder, folder / "last.pt"):
        for command in (["run", "mode=evaluate", f"checkpoint={place}"], ["predict", str(place), "x.mp4"]):
            assert cli.main(command) == 2
            assert "needs plug-ins, which are code" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"plugins=\[mine_evil\]"):
        adafocus.load(folder)
    assert "mine_evil" not in sys.modules


def test_plugins_make_no_other_run() -> None:
    one = config.to_dict(compose([]))
    assert config.identity(one) == config.identity(one | {"plugins": ["mine"]})


def test_a_taken_name_is_refused() -> None:
    for register, taken in (
        (adafocus.register_backbone, "resnet50"),
        (adafocus.register_dataset, "glyphs"),
        (adafocus.register_policy, "paper"),
        (adafocus.register_logger, "tensorboard"),
    ):
        with pytest.raises(UserError, match=f"there is already a .* named '{taken}'"):
            register(taken, object)
        register("mine", object)
        register("mine", object)  # registering the same object again is allowed
        with pytest.raises(UserError, match="there is already"):
            register("mine", list)

    class Twin(RecognizerMethod):
        pass

    with pytest.raises(UserError, match="there is already a method named 'recognizer'"):
        adafocus.register_method(Twin)
    with pytest.raises(UserError, match="cannot be the name"):
        adafocus.register_backbone("a/b", object)


def test_the_words_of_the_configuration_are_those_of_the_tables() -> None:
    assert tuple(BACKBONES) == choices.BACKBONES


def test_an_option_of_a_plugin_may_not_hide_one_of_ours(tmp_path: Path, capsys) -> None:
    package = tmp_path / "mine_options"
    (package / "conf" / "dataset").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "conf/dataset/glyphs.yaml").write_text("name: other\n")
    assert cli.run(["plugins=[mine_options]"]) == 2
    assert "adafocus already has an option dataset=glyphs" in capsys.readouterr().err


def test_a_module_is_a_backbone_in_one_line() -> None:
    from torchvision.models import efficientnet_b0

    adafocus.register_backbone("efficientnet", lambda: features_of(efficientnet_b0().features))
    settings = compose(["backbone.focus=efficientnet", "backbone.weights=none", "method=recognizer", "backbone=tiny"])
    network = build.meta_model(settings, 10)
    assert network.backbone.width == 1280 and network.backbone.map_size(96) == (3, 3)
    assert build.cost(settings, 10).total > 10**7
    with pytest.raises(ValueError, match=r"gives \(1, 1000\)"):
        features_of(efficientnet_b0())
    adafocus.register_backbone("mine", nn.Identity)
    with pytest.raises(UserError, match="without width and map_size"):
        build.meta_model(compose(["backbone.focus=mine", "method=recognizer", "backbone=tiny"]), 10)


class Dots:
    classes, labels = ("a", "b"), (0, 1, 0, 1)

    def __init__(self, split: str, *, seed: int, root: str | None, size: int = 40) -> None:
        self.size = size

    def __getitem__(self, index: int):
        if index == 3:
            raise OSError("the disk is gone")
        return torch.full((6, self.size, self.size, 3), 50 * index, dtype=torch.uint8).numpy()


def dots(**changes: object) -> config.Config:
    settings = compose(["dataset.limit=null", "backbone=tiny"])
    dataset = {"source": "dots", "frame_size": 32, "classes": None, "flip": 0.0, "options": {}, **changes}
    for key, value in dataset.items():
        setattr(settings.dataset, key, value)
    return settings


def test_a_registered_data_set_gives_clips_and_names_bad_videos() -> None:
    adafocus.register_dataset("dots", Dots)
    found = data(dots(limit=2, options={"size": 64}))
    assert found.classes == ["a", "b"] and len(found.train) == len(found.test) == 2
    assert found.test[-1, 1].frames.shape == (4, 32, 32, 3) and found.test[-1, 1].labels[0] == 0
    whole = data(dots())
    bad = whole.test[-1, 3]
    assert bad.frames is None and "dots val 3: the disk is gone" in bad.bad[0].reason
    assert whole.train[0, 3].bad and whole.train[0, 3].frames is not None


def test_options_that_do_not_fit_are_one_line() -> None:
    adafocus.register_dataset("dots", Dots)
    for changes, says in (
        ({"options": {"sise": 1}}, "unexpected keyword argument 'sise'"),
        ({"classes": 3}, "has 2 classes, not dataset.classes=3"),
    ):
        with pytest.raises(UserError, match=says):
            data(dots(**changes))
    for typed in ("+dataset.options.size=3", "+policy.options.x=3"):
        with pytest.raises(UserError, match="options are for .*plug-in"):
            compose([typed])
