"""One pipeline after another, each shown as it goes, and a table of them at the end where there are several."""

from collections.abc import Sequence

from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config
from agepipe.core.errors import AgepipeError, TrainingError
from agepipe.training.worker import warm
from flows import show
from flows.pipeline import pipeline
from flows.result import PipelineResult


def run(configs: Sequence[Config], runtime: Runtime) -> None:
    """Run each; one that fails among several is told, and the others go on.

    Raises:
        AgepipeError: the only one failed, or at the end, some of several did.
    """
    done: dict[str, PipelineResult] = {}
    for config in configs:
        try:
            done[config.title] = _one(config, runtime)
        except AgepipeError as error:
            if len(configs) == 1:
                raise
            show.failure(config.title, error)
    if len(done) > 1:
        show.comparison({config.variant: done[config.title] for config in configs if config.title in done})
    if lost := [config.title for config in configs if config.title not in done]:
        raise TrainingError(f"{', '.join(lost)}: {len(lost)} of {len(configs)} failed; the reasons are above.")


def _one(config: Config, runtime: Runtime) -> PipelineResult:
    show.plan(config, runtime)
    warm()  # torch is imported while Prefect's server starts
    with show.progress():
        result = pipeline(config, runtime)
    show.outcome(result)
    return result
