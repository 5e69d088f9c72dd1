"""What Prefect's form or API may give a flow is refused by the same rules as the command line."""

import pytest

from agepipe.core.errors import ConfigError
from flows.pipeline import pipeline


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"learn": {"nesterov": True}}, "learn.nesterov"),
        ({"learn": {"size": 96}, "ingest": {"size": 64}}, "learn.size"),
        ({"search": {"keep": 0.2}}, "search.keep"),
        ({"final": {"refit": True, "patience": 3}}, "final.patience"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused_before_the_flow_runs(
    config: dict[str, object], field: str
) -> None:
    with pytest.raises(ConfigError, match=field):
        pipeline.validate_parameters({"config": config})
