"""Run pipelines one after another and show their progress; several end with a table of their results."""

from collections.abc import Sequence

from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config
from agepipe.core.errors import AgepipeError, TrainingError
from agepipe.training.worker import warm
from flows import show
from flows.pipeline import pipeline
from flows.result import PipelineResult


def run(configs: Sequence[Config], runtime: Runtime) -> None:
    """Run each configuration; if one of several fails, its error is printed and the others still run.

    Raises:
        AgepipeError: the only one failed; or, after all have run, some of several failed.
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
    if failed := [config.title for config in configs if config.title not in done]:
        raise TrainingError(f"{', '.join(failed)}: {len(failed)} of {len(configs)} failed; the reasons are above.")


def _one(config: Config, runtime: Runtime) -> PipelineResult:
    show.plan(config, runtime)
    warm()  # import torch while the Prefect server starts
    with show.progress():
        result = pipeline(config, runtime)
    show.outcome(result)
    return result
