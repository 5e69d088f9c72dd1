"""Run pipelines one after another and show their progress; several end with a table of their results."""

from collections.abc import Sequence

from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config
from agepipe.core.errors import AgepipeError, TrainingError
from agepipe.data import sources
from agepipe.training.worker import warm
from flows import show
from flows.pipeline import pipeline
from flows.result import PipelineResult
from flows.temporary import TemporaryServer
from tasks import data
from tasks.watch import watch


def run(configs: Sequence[Config], runtime: Runtime, server: TemporaryServer | None) -> None:
    """Run each configuration; if one of several fails, its error is printed and the others still run.

    Args:
        configs: the configurations.
        runtime: where and how to run them.
        server: the temporary server, which may still be starting, if there is one.

    Raises:
        AgepipeError: the only one failed; or, after all have run, some of several failed.
    """
    done: dict[str, PipelineResult] = {}
    for config in configs:
        try:
            done[config.title] = _one(config, runtime, server)
        except AgepipeError as error:
            if len(configs) == 1:
                raise
            show.failure(config.title, error)
    if len(done) > 1:
        show.comparison({config.variant: done[config.title] for config in configs if config.title in done})
    if failed := [config.title for config in configs if config.title not in done]:
        raise TrainingError(f"{', '.join(failed)}: {len(failed)} of {len(configs)} failed; the reasons are above.")


def _one(config: Config, runtime: Runtime, server: TemporaryServer | None) -> PipelineResult:
    show.plan(config, runtime)
    warm()  # import torch while the Prefect server starts
    with show.progress():
        if server is not None:
            if not runtime.refreshes("ingest"):  # while the server starts; the pipeline then finds them in the cache
                data.ingest(sources.fingerprint(config.source, runtime, watch("source")), config.ingest, runtime)
            server.wait()
        result = pipeline(config, runtime)
    show.outcome(result)
    return result
