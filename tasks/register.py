"""The tasks that decide what becomes of a model in the registry. Never cached: the registry lives on."""

from collections.abc import Callable

from prefect import task

from agepipe.config.runtime import Where
from agepipe.config.stages import Config, EvaluateSettings, ReleaseSettings
from agepipe.data.records import Partition, Rows
from agepipe.evaluation.gate import Comparison, compare
from agepipe.evaluation.records import Evaluation
from agepipe.model.records import Model
from agepipe.registry import register as registry
from agepipe.registry.records import Registered
from tasks.watch import watch


@task
def register(model: Model, evaluation: Evaluation, partition: Partition, config: Config, where: Where) -> Registered:
    """Register the model once; champion if it is the first or beats the champion on the same test rows."""
    decide = gate(model, partition.test, config.release, config.evaluate, where)
    return registry.register(model, evaluation, config.release, where, partition=partition, decide=decide)


@task
def release(
    model: Model, rows: Rows, name: str, settings: ReleaseSettings, evaluate: EvaluateSettings, where: Where
) -> Registered:
    """Decide anew about a registered version, by the comparison with the champion of now."""
    return registry.release(model, name, where, gate(model, rows, settings, evaluate, where))


def gate(
    model: Model, rows: Rows, settings: ReleaseSettings, evaluate: EvaluateSettings, where: Where
) -> Callable[[Model], Comparison]:
    """The comparison with whichever model is the champion when the registry's turn has come."""

    def decide(champion: Model) -> Comparison:
        return compare(model, champion, rows, settings, evaluate, where, watch("release"))

    return decide
