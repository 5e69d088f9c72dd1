"""The tasks that register and promote models. Never cached, since the registry changes."""

from collections.abc import Callable

from prefect import task

from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config, EvaluateSettings, ReleaseSettings
from agepipe.data.records import Partition, Rows
from agepipe.evaluation.gate import Comparison, compare
from agepipe.evaluation.records import Evaluation
from agepipe.model.records import Model
from agepipe.registry import register as registry
from agepipe.registry.records import Registered
from tasks.context import parent_of
from tasks.watch import watch


@task
def register(
    model: Model, evaluation: Evaluation, partition: Partition, config: Config, runtime: Runtime
) -> Registered:
    """Register the model once; champion if it is the first or is better than the champion on the same test rows."""
    decide = gate(model, partition.test, config.release, config.evaluate, runtime)
    return registry.register(
        model, evaluation, config.release, runtime, decide=decide, partition=partition, parent=parent_of(runtime)
    )


@task
def release(
    model: Model, rows: Rows, name: str, settings: ReleaseSettings, evaluate: EvaluateSettings, runtime: Runtime
) -> Registered:
    """Decide again about a registered version, by a comparison with the current champion."""
    return registry.release(model, name, runtime, gate(model, rows, settings, evaluate, runtime))


def gate(
    model: Model, rows: Rows, settings: ReleaseSettings, evaluate: EvaluateSettings, runtime: Runtime
) -> Callable[[Model], Comparison]:
    """A function that compares the model with the champion; called while the registry is locked."""

    def decide(champion: Model) -> Comparison:
        return compare(model, champion, rows, settings, evaluate, runtime, watch("release"))

    return decide
