"""The whole way from photographs to a registered model: one call a stage."""

from prefect import flow

from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config
from flows.beginning import begin
from flows.result import PipelineResult
from flows.search import search
from tasks.audit import audit
from tasks.evaluate import evaluate
from tasks.ingest import fingerprint, ingest
from tasks.parent import check, parent_run
from tasks.register import register
from tasks.relabel import relabel
from tasks.resolve import first_weights
from tasks.split import champions_partition, partitioned
from tasks.train import train


@flow(name="pipeline", flow_run_name="pipeline {config.title}", on_running=[begin])
def pipeline(config: Config, runtime: Runtime | None = None) -> PipelineResult:
    """Photographs in, an evaluated and registered model out; what is already there is not computed again."""
    runtime = runtime or Runtime()
    check(config, runtime)
    with parent_run(config, runtime) as run:
        here = run.runtime
        config = first_weights(config, here)
        catalogue = run.found(ingest(fingerprint(config.source, here), config.ingest, here))
        report = run.found(audit(catalogue, config.labels, here))
        rows = relabel(catalogue, config.labels, here)
        partition = run.found(partitioned(rows, config.split, champions_partition(config, here), here))
        check(config, here, partition)
        choice = run.found(search(partition.development, config.learn, config.search, here))
        model = run.found(train(partition.development, config.learn, choice, config.final, here))
        evaluation = run.found(evaluate(model, partition.test, config.evaluate, False, None, here))
        registered = run.found(register(model, evaluation, partition, config, here))
    return PipelineResult(
        run=run.id, catalogue=catalogue, report=report, partition=partition, choice=choice, model=model,
        evaluation=evaluation, registered=registered,
    )  # fmt: skip
