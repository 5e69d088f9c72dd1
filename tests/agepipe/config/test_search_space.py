import pytest

from agepipe.config.base import changed, combinations
from agepipe.config.presets import parse_overrides
from agepipe.config.search_space import Span, corners
from agepipe.config.stages import Config, SearchSettings
from agepipe.core.errors import ConfigError

WORDS = [
    "search.strategy=optuna",
    "search.space={lr={low=1e-4,high=0.01,log=true},'augment.flip'=[0.0,0.5],batch={low=8,high=64}}",
]


def test_a_space_is_read_from_the_command_line_and_survives_json() -> None:
    search = changed(Config(), parse_overrides(WORDS)).search
    assert search.space == {
        "lr": Span(low=1e-4, high=0.01, log=True), "augment.flip": (0.0, 0.5), "batch": Span(low=8, high=64),
    }  # fmt: skip
    assert SearchSettings.model_validate_json(search.model_dump_json()) == search


def test_its_corners_are_a_grid() -> None:
    space = changed(Config(), parse_overrides(WORDS)).search.space
    assert len(combinations(corners(space))) == 8
    assert corners(space)["lr"] == (1e-4, 0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{lrr={low=1,high=2}}", "search.space: there is no field 'lrr'; the nearest is 'lr'"),
        ("{'augment.flop'=[0.1]}", "no field 'augment.flop'; the nearest is 'augment.flip'"),
        ("{lr={low=1,high=0.5}}", "'lr' has low=1 and high=0.5; low must be less than high"),
        ("{lr={low=0.1,high=0.1}}", "low must be less than high"),
        ("{lr={lo=0.1,high=0.5}}", "search.space lr: there is no field 'lo'; the nearest is 'low'"),
        ("{lr={low=0.1}}", "search.space lr: 'high'"),
        ("{lr={low=0.1,high=inf}}", "search.space lr: 'high' is inf"),
        ("{lr=3}", "'lr' is 3; give {low=…, high=…}, or a list of choices"),
        ("{head={low=1,high=2}}", "'head' is not a number"),
        ("{nesterov={low=0,high=1}}", "'nesterov' is not a number"),
        ("{batch={low=2.5,high=64}}", "search.space: 'batch' is 2.5"),
        ("{momentum={low=0,high=0.5,log=true}}", "log=true and low=0"),
        ("{lr={low=0.1,high=99}}", "search.space: 'lr' is 99"),
        ("{head=[]}", "'head' has no values"),
        ("{head=['v1','v9']}", "search.space: 'head' is 'v9'"),
        ("3", "'search.space' is 3"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("{", r"\{")):
        changed(Config(), parse_overrides([f"search.space={text}"]))
