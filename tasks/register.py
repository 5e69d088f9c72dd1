"""The task that gives the model a version and decides what becomes of it. Never cached: the registry lives on."""

from prefect import task

from agepipe import registry
from agepipe.config import Config, Where
from agepipe.judge.compare import Comparison, compare
from agepipe.records import Evaluation, Model, Partition, Registered


@task
def register(model: Model, evaluation: Evaluation, partition: Partition, config: Config, where: Where) -> Registered:
    """Register the model once; champion if it is the first or beats the champion on the same test rows."""

    def decide(champion: Model) -> Comparison:
        return compare(model, champion, partition.test, config.release, config.evaluate, where)

    return registry.register(model, evaluation, config.release, where, partition=partition, decide=decide)
