"""Settings that do not go together are refused by the classes, whoever builds them and however."""

from pathlib import Path

import pytest

from agepipe.config.base import changed
from agepipe.config.stages import Config, FinalSettings, IngestSettings, LearnSettings, SearchSettings
from agepipe.config.torchvision_models import is_file
from agepipe.core.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learn.network": "resnet5"}, "learn.network: 'resnet5' is not known; the nearest is 'resnet50'"),
        ({"learn.weights": "IMAGENET"}, "learn.weights: 'IMAGENET' .* shufflenet_v2_x0_5; the nearest is"),
        ({"learn.size": 128}, "learn.size: 128 px, but ingest.size stores 108"),
        ({"learn.network": "vit_b_16", "learn.size": 90}, "multiple of 16"),
        ({"learn.network": "inception_v3", "learn.size": 64}, "at least 75"),
        ({"learn.sizes": [80, 64, 96]}, r"learn.sizes: \[80, 64, 96\] must rise"),
        ({"learn.sizes": [64, 64, 96]}, r"learn.sizes: \[64, 64, 96\] must rise"),
        ({"learn.sizes": [64, 80]}, r"learn.sizes: \[64, 80\] must end with learn.size, which is 96"),
        ({"learn.sizes": [64, 128]}, r"learn.sizes: \[64, 128\] must end with learn.size, which is 96"),
        ({"learn.sizes": [96]}, r"learn.sizes: \[96\] does nothing beside learn.size"),
        ({"learn.sizes": [64, 80, 96], "final.epochs": 2}, r"learn.sizes: .* are 3 sizes, but final.epochs is 2"),
        (
            {"learn.sizes": [64, 96], "learn.epochs": 1, "search.grid": {"lr": [0.1, 0.2]}},
            r"learn.sizes: .* are 2 sizes, but learn.epochs is 1",
        ),
        ({"learn.sizes": [64, 96], "learn.network": "vit_b_16"}, "learn.sizes: .* vit_b_16 takes pictures of one size"),
        ({"learn.sizes": [64, 96], "learn.network": "inception_v3"}, "learn.sizes: 64 px, but inception_v3 needs"),
        (
            {"search.grid": {"sizes": [[], [80, 64, 96]]}},
            r"search.grid \{'sizes': \[80, 64, 96\]\}: learn.sizes: .* rise",
        ),
        ({"search.grid": {"network": ["resnet18", "resnet19"]}}, "resnet19"),
        ({"search.grid": {"size": [96, 160]}}, "160 px, but ingest.size stores 108"),
        ({"learn.nesterov": True, "learn.momentum": 0, "learn.optimizer": "sgd"}, "learn.nesterov"),
        ({"learn.nesterov": True}, r"learn.nesterov: True does nothing without learn.optimizer"),
        ({"learn.target": "years", "learn.label_smoothing": 0.1}, "learn.label_smoothing: 0.1 does nothing"),
        ({"learn.target": "ordinal", "learn.label_smoothing": 0.1}, "learn.label_smoothing: 0.1 does nothing"),
        ({"learn.target": "ordinal", "learn.years_loss": 0.2}, "learn.years_loss: 0.2 does nothing"),
        ({"final.refit": True, "final.patience": 3}, "final.patience: 3 does nothing with final.refit"),
        ({"final.refit": True, "final.keep": "last"}, "final.keep: last does nothing with final.refit"),
        ({"final.keep": "last", "final.patience": 3}, "final.patience: 3 does nothing with final.keep = 'last'"),
        ({"final.keep": "last", "final.metric": "mae"}, "final.metric: mae does nothing with final.keep = 'last'"),
        ({"learn.weights": "face"}, "learn.weights: 'face' .* shufflenet_v2_x0_5; the nearest is"),
        ({"search.grid": {"nesterov": [False, True]}}, r"search.grid {'nesterov': True}: learn.nesterov: True"),
        ({"search.grid": {"years_loss": [0.1, 5.0]}}, "learn.years_loss: 5.0 does nothing without learn.target"),
    ],
)
def test_fields_that_do_not_go_together_are_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed(Config(), changes)


def test_weights_may_be_a_file_without_folder_and_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "face").touch()
    assert is_file(changed(Config(), {"learn.weights": "face"}).learn.weights)


@pytest.mark.parametrize("name", ["none", "pretrained", "IMAGENET1K_V1"])
def test_a_file_does_not_take_the_place_of_weights_of_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    assert not is_file(name)
    assert is_file(f"./{name}")


@pytest.mark.parametrize("sizes", [[16, 96], [64, 600]])
def test_sizes_outside_the_bounds_are_refused_by_name(sizes: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"'learn\.sizes\.[01]' is (16|600), but input should be"):
        changed(Config(), {"learn.sizes": sizes})


def test_sizes_that_can_work_pass() -> None:
    changed(Config(), {"learn.sizes": [64, 80, 96], "search.grid": {"sizes": [[], [64, 96]]}})
    changed(Config(), {"learn.sizes": [64, 96], "learn.epochs": 1})  # no trial, no epochs needed


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (LearnSettings, {"nesterov": True}, "learn.nesterov"),
        (LearnSettings, {"optimizer": "sgd", "nesterov": True, "momentum": 0.0}, "learn.momentum is 0"),
        (LearnSettings, {"size": 96, "sizes": (96, 64)}, "learn.sizes"),
        (LearnSettings, {"network": "resnet5"}, "learn.network"),
        (SearchSettings, {"keep": 0.3}, "search.keep"),
        (SearchSettings, {"strategy": "halving", "grid": {"lr": (0.1, 0.2)}}, "search.rungs"),
        (FinalSettings, {"refit": True, "patience": 3}, "final.patience"),
        (IngestSettings, {"min_age": 60, "max_age": 30}, "ingest.min_age: 60, but ingest.max_age is 30"),
        (Config, {"learn": LearnSettings(size=128)}, "learn.size: 128 px, but ingest.size"),
        (Config, {"learn": {"size": 96}, "ingest": {"size": 64}}, "learn.size: 96 px, but ingest.size"),
    ],
)
def test_each_class_refuses_by_itself_also_what_comes_as_json(
    kind: type, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**fields)
    with pytest.raises(ConfigError, match=message):
        kind.model_validate_json(kind.model_construct(**fields).model_dump_json(warnings=False))


def test_a_value_of_the_grid_needs_the_other_fields_of_its_own_base_only() -> None:
    sgd = LearnSettings(optimizer="sgd", momentum=0.5)
    grid = SearchSettings(grid={"nesterov": (False, True)})
    assert Config(learn=sgd, search=grid, ingest=IngestSettings()).search == grid
    with pytest.raises(ConfigError, match=r"{'nesterov': True}: learn.nesterov"):
        Config(search=grid)


@pytest.mark.parametrize(
    ("name", "value", "grid"),
    [
        ("search.grid.lr", [0.2], {"lr": (0.2,), "augment.flip": (0.0, 0.5)}),
        ("search.grid.augment.flip", [0.1], {"lr": (0.1,), "augment.flip": (0.1,)}),
        ("search.grid.dropout", [0.3], {"lr": (0.1,), "augment.flip": (0.0, 0.5), "dropout": (0.3,)}),
    ],
)
def test_one_field_of_a_grid_is_changed_by_dotted_name(name: str, value: object, grid: dict[str, object]) -> None:
    base = changed(Config(), {"search.grid": {"lr": [0.1], "augment.flip": [0.0, 0.5]}})
    assert changed(base, {name: value}).search.grid == grid
    assert base.search.grid["lr"] == (0.1,)


@pytest.mark.parametrize("name", ["search.grid.lrr", "learn.lr.low", "learn.augment.flip.low", "search.grids.lr"])
def test_a_dotted_name_that_leads_nowhere_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no field"):
        changed(Config(), {name: [0.1]})
