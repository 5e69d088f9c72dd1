import pytest

from agepipe import presets
from agepipe.errors import ConfigError


def test_there_are_four_from_small_to_large() -> None:
    assert presets.names() == ("sample", "laptop", "gpu", "notebook")
    assert {path.stem for path in presets.FOLDER.glob("*.toml")} == set(presets.names())


@pytest.mark.parametrize("preset", presets.names())
def test_every_preset_loads_and_keeps_its_name(preset: str) -> None:
    assert presets.load(preset).preset == preset


def test_an_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="'tiny' is not known; choose one of sample, laptop, gpu, notebook"):
        presets.load("tiny")


def test_an_override_reaches_into_the_preset() -> None:
    assert presets.load("sample", {"search.folds": 5}).search.folds == 5


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
