import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from agepipe.config import presets
from agepipe.config.base import changed
from agepipe.config.stages import Config
from agepipe.core.errors import ConfigError
from agepipe.training.check import check

ROOT = Path(__file__).resolve().parents[3]
HISTORY = {
    "first": {"learn.head": "v1", "learn.dropout": 0.2, "final.epochs": 50, "final.patience": 7},
    "years": {"labels.ranges": "years", "learn.target": "ranges", "learn.network": "resnet50"},
    "search-resnet": {"learn.network": "resnet50", "learn.epochs": 1, "search.folds": 4},
    "search-efficientnet": {"learn.network": "efficientnet_b0", "learn.epochs": 1, "search.folds": 4},
    "head-v1": {"learn.head": "v1", "learn.dropout": 0.5},
    "head-v2": {"learn.head": "v2", "learn.dropout": 0.5},
    "head-v3": {"learn.head": "v3", "learn.dropout": 0.5},
    "second": {"learn.head": "v1", "learn.dropout": 0.4},
    "third": {"learn.head": "v2", "learn.dropout": 0.4},
    "fourth": {"learn.head": "v2", "learn.dropout": 0.5, "learn.l1": 0.0},
    "fifth": {"learn.l1": 0.8, "learn.batch": 16, "learn.weight_decay": 1e-4},
    "sixth": {"learn.l1": 0.8, "learn.weight_decay": 1e-6, "learn.batch": 4},
    "seventh": {"learn.l1": 0.9, "learn.weight_decay": 1e-6, "learn.batch": 8},
    "last": {"learn.l1": 0.08, "learn.weight_decay": 1e-5, "learn.batch": 16, "learn.momentum": 0.4},
}
"""What makes each variant of the notebook what it is."""


def test_there_are_four_from_small_to_large() -> None:
    assert presets.names() == ("sample", "laptop", "gpu", "notebook")
    assert {path.stem for path in presets.FOLDER.glob("*.toml")} == set(get_args(presets.PresetName))


@pytest.mark.parametrize("preset", presets.names())
def test_every_preset_loads_and_keeps_its_name(preset: str) -> None:
    assert presets.load(preset).preset == preset


def test_the_deployment_that_bears_the_name_of_a_preset_is_that_preset() -> None:
    described = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    (weekly,) = (one for one in described["deployments"] if one["name"] == "weekly")
    given = Config.model_validate(weekly["parameters"]["config"])
    assert given == presets.load(given.preset)


def test_an_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="'tiny' is not known; choose one of sample, laptop, gpu, notebook"):
        presets.load("tiny")


def test_an_override_reaches_into_the_preset() -> None:
    assert presets.load("sample", {"search.folds": 5}).search.folds == 5


@pytest.mark.parametrize(
    ("preset", "changes", "instead"),
    [
        ("sample", {"learn.lr": 0.005}, "'learn.lr' is 0.005.* give search.grid.lr=[0.005] .* search.grid={}"),
        (
            "laptop",
            {"learn": {"weight_decay": 1e-3, "size": 96}, "search.grid": {"weight_decay": [1e-4]}},
            "'learn.weight_decay' .* search.grid.weight_decay=",
        ),
        (
            "laptop",
            {"learn.augment": {"flip": 0.1}, "search.grid": {"augment.flip": [0.0, 0.5]}},
            "'learn.augment.flip' is 0.1.* give search.grid.augment.flip=[0.1]",
        ),
        (
            "laptop",
            {"learn.head": "v1", "search.strategy": "optuna", "search.space": {"head": ["linear", "v2"]}},
            "'learn.head' is 'v1'.* give search.space.head=[\"v1\"] instead.$",
        ),
    ],
)
def test_an_override_that_the_search_would_replace_is_refused_with_what_to_give(
    preset: str, changes: dict[str, object], instead: str
) -> None:
    with pytest.raises(ConfigError, match=re.sub(r"[\[\]{}]", r"\\\g<0>", instead)):
        presets.load(preset, changes)


def test_an_override_of_several_variants_is_refused_where_the_search_of_each_would_replace_it() -> None:
    searched, other = presets.load_each("notebook", {"learn.lr": 0.02}, ("search-resnet", "fourth"))
    assert (searched.variant, other.learn.lr) == ("search-resnet", 0.02)
    with pytest.raises(ConfigError, match=r"'learn\.lr' is 0\.02"):
        presets.load_each("notebook", {"learn.lr": 0.02}, ("search-resnet", "search-efficientnet"))


def test_what_the_refusal_names_instead_works() -> None:
    assert presets.load("sample", {"search.grid.lr": [0.005]}).search.grid == {"lr": (0.005,)}
    alone = presets.load("sample", {"learn.lr": 0.005, "search.grid": {}})
    assert (alone.learn.lr, alone.search.grid) == (0.005, {})


def test_the_notebook_has_its_history_and_laptop_begins_with_trained_or_random_weights() -> None:
    assert tuple(presets.variants("notebook")) == tuple(HISTORY)
    assert {preset: tuple(presets.variants(preset)) for preset in ("sample", "laptop", "gpu")} == {
        "sample": (), "laptop": ("scratch",), "gpu": ("scratch",)
    }  # fmt: skip
    assert all(one.about for preset in presets.names() for one in presets.variants(preset).values())
    trained, random = presets.load("laptop"), presets.load("laptop", variant="scratch")
    assert (trained.learn.weights, random.learn.weights) == ("pretrained", "none")
    assert trained.split == random.split  # the same rows are locked


@pytest.mark.parametrize("name", HISTORY)
def test_every_variant_loads_and_is_what_the_notebook_did(name: str) -> None:
    config = presets.load("notebook", variant=name)
    check(config, rows_count=5000)
    assert (config.preset, config.variant, config.title) == ("notebook", name, f"notebook {name}")
    assert changed(config, HISTORY[name]) == config
    searched = 20 if name.startswith("search") else 0
    assert len(config.search.grid.get("lr", ())) * len(config.search.grid.get("weight_decay", ())) == searched


def test_an_override_is_laid_over_the_variant() -> None:
    config = presets.load("notebook", {"learn.l1": 0.0, "final.epochs": 2}, "fifth")
    fourth = presets.load("notebook", {"final.epochs": 2}, "fourth")
    assert config.model_copy(update={"variant": ""}) == fourth.model_copy(update={"variant": ""})


def test_the_quarter_for_validation_of_the_last_training_is_of_all_photographs() -> None:
    config = presets.load("notebook", variant="last")
    assert (1 - config.split.test) * config.final.validation == pytest.approx(0.25)


def test_variants_are_chosen_by_name_each_once() -> None:
    assert presets.chosen("notebook", []) == ("",)
    assert presets.chosen("notebook", ["last", "fifth", "last"]) == ("last", "fifth")
    assert presets.chosen("notebook", ["fifth", "all"]) == tuple(HISTORY)


@pytest.mark.parametrize(
    ("preset", "word", "message"),
    [
        ("notebook", "fith", r"'fith' is not known for the preset notebook; the nearest is 'fifth', and there are f"),
        ("sample", "fifth", "'fifth', but the preset sample has no variants"),
        ("sample", "all", "'all', but the preset sample has no variants"),
    ],
)
def test_an_unknown_variant_is_refused_with_those_there_are(preset: str, word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        presets.chosen(preset, [word])
    with pytest.raises(ConfigError, match="variant: "):
        presets.load(preset, variant=word)


def _preset_of(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "own.toml").write_text(text)
    monkeypatch.setattr(presets, "FOLDER", folder)


def test_a_variant_follows_those_before_it_and_keeps_a_grid_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        [variants.a]
        about = "a"
        learn = { lr = 0.1, augment = { flip = 0.0 } }
        [variants.b]
        about = "b"
        follows = "a"
        learn.lr = 0.2
        search.grid = { "augment.flip" = [0.1, 0.2] }
    """
    _preset_of(tmp_path, text, monkeypatch)
    config = presets.load("own", variant="b")
    assert (config.learn.lr, config.learn.augment.flip) == (0.2, 0.0)
    assert config.search.grid == {"augment.flip": (0.1, 0.2)}
    assert presets.load("own").learn == Config().learn


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learn.hed = 'v1'", "variant a: there is no field 'learn.hed'; the nearest is 'learn.head'"),
        ("learn.dropout = 1.5", "variant a: 'learn.dropout' is 1.5"),
        ("follows = 'b'", "it follows 'b', which does not come before it"),
    ],
)
def test_a_variant_that_is_wrong_is_refused_by_name(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _preset_of(tmp_path, f"[variants.a]\nabout = 'a'\n{line}\n[variants.b]\nabout = 'b'\n", monkeypatch)
    with pytest.raises(ConfigError, match=message):
        presets.load("own", variant="a")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("learn.epochs=3", 3),
        ("learn.lr=1e-3", 1e-3),
        ("learn.mirror=true", True),
        ("learn.network=resnet18", "resnet18"),
        ("search.grid={lr=[0.1,0.2]}", {"lr": [0.1, 0.2]}),
        ("release.because=a=b", "a=b"),
        ("release.model=", ""),
    ],
)
def test_a_value_is_toml_where_it_can_be_read_as_such(word: str, value: object) -> None:
    assert presets.parse_overrides([word]) == {word.partition("=")[0]: value}


@pytest.mark.parametrize("word", ["folds", "=3"])
def test_a_word_that_is_no_override_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="is not 'field=value'"):
        presets.parse_overrides([word])
