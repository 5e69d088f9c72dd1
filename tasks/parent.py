"""The MLflow run of a pipeline, which collects the results of its stages and is linked with the Prefect run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import singledispatch
from pathlib import Path
from typing import TypeVar

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config
from agepipe.core.provenance import environment
from agepipe.core.record import Record, digest_of
from agepipe.data.records import DataReport, Partition
from agepipe.evaluation.records import Compared, Evaluation
from agepipe.model.records import Model
from agepipe.registry import tracking, versions
from agepipe.registry.records import Registered
from agepipe.reports import audit_artifact, comparison, data_text, report
from agepipe.training import check as work
from agepipe.training import warm_start
from agepipe.training.records import Choice
from tasks.context import Context
from tasks.tidy import tidy
from tasks.track import name_in_prefect, prefect_tags

R = TypeVar("R", bound=Record)
TAG = 5000
"""Maximum length of an MLflow tag value."""


@task
def check(config: Config, runtime: Runtime, partition: Partition | None = None) -> None:
    """Check settings before any work is done, and again once the rows are known."""
    work.check(config, partition.development.count if partition else None, runtime)
    if partition is not None:
        work.check_rows(config, partition.development)
        warm_start.check_test(config, partition.test)


@dataclass(frozen=True)
class Facts:
    """What is logged of a record: to the pipeline's run, and as an artifact in Prefect."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, object] = field(default_factory=dict)
    folder: Path | None = None
    markdown: str | None = None
    sentence: str | None = None


@singledispatch
def facts(_: Record) -> Facts:
    """What to log of a record, beside its digest and run, which are always logged."""
    return Facts()


@facts.register
def _(record: DataReport) -> Facts:
    return Facts(folder=record.folder, markdown=data_text.markdown(audit_artifact.read(record)))


@facts.register
def _(record: Partition) -> Facts:
    counts = {
        "development_rows": record.development.count, "test_rows": record.test.count, "left_out_rows": record.left_out,
    }  # fmt: skip
    return Facts(metrics=counts, tags={"test.digest": record.test.digest})


@facts.register
def _(record: Choice) -> Facts:
    chosen = {f"chosen.{name}": value for name, value in record.settings.items()}
    by = {"choice.runs": ",".join(record.runs)[:TAG]} if record.runs else {}
    return Facts(metrics={"trials": record.trials}, tags={**chosen, **by})


@facts.register
def _(record: Model) -> Facts:
    return Facts(metrics={f"validation_{name}": value for name, value in record.metrics.items()})


@facts.register
def _(record: Evaluation) -> Facts:
    return Facts(
        metrics=record.metrics, folder=record.folder, markdown=report.markdown(record), sentence=report.verdict(record)
    )


@facts.register
def _(record: Registered) -> Facts:
    version = f"{record.name}/{record.version}"
    tags = {versions.REGISTERED: version, "model.alias": record.alias, "model.reason": record.reason}
    return Facts(tags=tags, sentence=f"Version {record.version} of {record.name}, {record.alias}: {record.reason}")


class ParentRun:
    """The run under which the runs of all stages are nested."""

    def __init__(self, run: tracking.Run, runtime: Runtime) -> None:
        self.id = run.run_id
        self.runtime = Context(**dict(runtime), parent=run.run_id)
        self._run = run
        self._sentences: list[str] = []

    def found(self, record: R) -> R:
        """Log the record of a stage, and the run that made it, which may be of an earlier pipeline."""
        if isinstance(record, Partition):
            self._run.dataset(record.development, "training")
            self._run.dataset(record.test, "test")
        kind, known = type(record).__name__.lower(), facts(record)
        made_by = {f"{kind}.run": record.run} if record.run else {}
        self._run.tags({f"{kind}.digest": record.digest, **made_by, **known.tags})
        self._run.metrics(known.metrics)
        if known.folder is not None:
            self._run.artifacts(known.folder, kind)
        if known.sentence is not None:
            self._sentences.append(known.sentence)
            self._run.description("\n\n".join(self._sentences))
        if known.markdown is not None:
            create_markdown_artifact(key=kind, markdown=known.markdown)
        return record


def announced(record: Evaluation, runtime: Runtime) -> Evaluation:
    """Create Prefect artifacts for an evaluation and its MLflow run."""
    create_markdown_artifact(key="evaluation", markdown=report.markdown(record))
    if record.run:
        name_in_prefect(record.run, runtime)
    return record


def compared(record: Compared, runtime: Runtime) -> Compared:
    """Create Prefect artifacts for a comparison and its MLflow run."""
    text = comparison.markdown(comparison.read(record), str(record.page))
    create_markdown_artifact(key="comparison", markdown=text)
    if record.run:
        name_in_prefect(record.run, runtime)
    return record


@contextmanager
def parent_run(config: Config, runtime: Runtime) -> Iterator[ParentRun]:
    """Open the run of a pipeline, or continue the one of a crashed run of the same configuration."""
    tidy(runtime)
    name = str(flow_run.name or f"pipeline {config.title}")
    with tracking.run(
        runtime, kind="pipeline", name=name, key=digest_of(config), params=config.model_dump(mode="json"),
        tags={"preset": config.preset, "variant": config.variant, **prefect_tags()}, watch=True,
    ) as run:  # fmt: skip
        run.text(config.model_dump_json(indent=2), "config.json")
        run.tags(environment())
        name_in_prefect(run.run_id, runtime)
        yield ParentRun(run, runtime)
