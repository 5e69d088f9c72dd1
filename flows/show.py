"""Terminal output of the commands: plan, progress bars, results."""

import logging
import math
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console, Group
from rich.live import Live
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.table import Table

from agepipe.config.base import combinations
from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config
from agepipe.core.errors import AgepipeError
from agepipe.core.ports import is_loopback
from agepipe.core.words import counted
from agepipe.data.records import Catalogue
from agepipe.evaluation.records import Compared, Evaluation
from agepipe.registry.records import Registered
from flows import access
from flows.result import PipelineResult
from flows.services import Services, netloc, reached
from flows.table import drawn, duration, search_table
from tasks.watch import Step, logger

if TYPE_CHECKING:
    from agepipe.evaluation.comparison import PairedDifferences
    from agepipe.reports.comparison import ModelComparison

library = logging.getLogger("agepipe")
console = Console(highlight=False, soft_wrap=True)
SHOWN = {
    "accuracy": "accuracy",
    "within_one": "within one range",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "mae": "mean absolute error, years",
}
"""The test figures that the terminal shows, in their order; the report has all."""
SHORT = {"accuracy": "accuracy", "within_one": "within 1", "macro_recall": "recall", "mae": "years off"}
"""The figures in the table of several runs, which fits 80 columns."""
SLOW = ("resnet50", "efficientnet_b0")
"""The notebook's networks, for which a warning about the training time is printed."""


class Bars(logging.Handler):
    """Shows progress records as bars; if the output is no terminal, as one line a minute and one at the end."""

    def __init__(self, bars: Progress, every: float = 60.0) -> None:
        """Use these bars; `every` is the number of seconds between two lines of a stage."""
        super().__init__()
        self._bars, self._every = bars, every
        self._ids: dict[str, TaskID] = {}
        self._first: dict[str, Step] = {}
        self._started: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Update the bar of the record's stage."""
        step: Step | None = getattr(record, "step", None)
        if step is None:
            return
        now = time.monotonic()
        if step.stage not in self._ids:
            self._ids[step.stage] = self._bars.add_task(step.stage, total=step.total, note="")
            self._first[step.stage], self._started[step.stage] = step, now
            self._due[step.stage] = now + self._every
        self._bars.update(self._ids[step.stage], completed=step.done, total=step.total, note=step.note)
        due = self._due[step.stage]
        if not console.is_terminal and (now >= due or (step.finished and due < math.inf)):
            self._due[step.stage] = math.inf if step.finished else now + self._every
            console.print(self._line(step, now - self._started[step.stage]), soft_wrap=True)

    def _line(self, step: Step, seconds: float) -> str:
        if step.finished:
            return f"{step.stage}: {step.note or step.total} ({seconds:.0f} s)"
        done = step.done - self._first[step.stage].done
        left = f", about {duration(seconds / done * (step.total - step.done))} left" if done > 0 else ""
        return f"{step} ({duration(seconds)}{left})"


@contextmanager
def progress() -> Iterator[None]:
    """Show progress while the block runs: a bar per stage, the table of the search, and warnings."""
    bars = Progress(
        TextColumn("{task.description:<16}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console,
    )  # fmt: skip
    with search_table(console) as search:

        def screen() -> Group:
            return Group(bars, *([drawn(search.latest)] if search.latest else []))

        live = Live(get_renderable=screen, console=console) if console.is_terminal else nullcontext()
        warnings = RichHandler(logging.WARNING, console, show_time=False, show_path=False)
        with live, _handling(library, warnings), _handling(logger, Bars(bars), logging.INFO):
            yield


@contextmanager
def _handling(source: logging.Logger, handler: logging.Handler, level: int | None = None) -> Iterator[None]:
    """Add a handler to a logger while the block runs, at another level if one is given."""
    before = source.level
    source.setLevel(before if level is None else level)
    source.addHandler(handler)
    try:
        yield
    finally:
        source.removeHandler(handler)
        source.setLevel(before)


def plan(config: Config, runtime: Runtime) -> None:
    """Print what the pipeline will do, with a warning if it takes long."""
    learn, search = config.learn, config.search
    count = search.trials if search.strategy == "optuna" else len(combinations(search.grid))
    trials = f"{counted(count, 'setting')} × {search.folds} folds ({search.strategy})" if search.trains else "no search"
    console.print(
        f"[bold]{config.title}[/bold]: {', '.join(config.source.data)} → {learn.network} at {learn.size} px, "
        f"{trials}, then {config.final.count} epochs. Workspace "
        f"{runtime.bucket + ', cached in ' if runtime.bucket else ''}{runtime.workspace}"
    )
    if learn.network in SLOW and learn.size >= 160:
        console.print(
            f"This trains {learn.network} at {learn.size} px: hours on a GPU, days without one.", style="yellow"
        )


def outcome(done: PipelineResult) -> None:
    """Print what was read, the test figures, the paths of the reports, the registered version and the next steps."""
    found, parts, new = done.catalogue, done.partition, done.registered
    console.print(
        f"\nFound {photographs(found)}, {found.rejected:,} rejected: "
        f"{parts.development.count:,} for training, {parts.test.count:,} locked for testing."
        + (f" {parts.left_out} left out: they connect test rows with development rows." if parts.left_out else "")
    )
    evaluation(done.evaluation)
    console.print(f"Data report   {done.report.page}")
    registered(new)
    console.print(
        "\nNext: open the report; [bold]python3 -m uv run agepipe web[/bold] tries your webcam; "
        "[bold]python3 -m uv run agepipe up[/bold] opens MLflow and Prefect."
    )


def photographs(found: Catalogue) -> str:
    """Number of photographs, and of files if some are copies."""
    files = f" in {found.count + found.copies:,} files" if found.copies else ""
    return f"[bold]{counted(found.count, 'photograph')}[/bold]{files}"


def evaluation(done: Evaluation) -> None:
    """Print the figures with their intervals, what the rows were evaluated on, and the path of the report."""
    table = Table(title=f"Results on {done.rows_in_words}", title_justify="left")
    for heading in ("figure", "value", f"{done.confidence * 100:g} % interval"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for name, label in SHOWN.items():
        low, high = done.intervals[name]
        table.add_row(label, f"{done.metrics[name]:.3f}{done.doubt}", f"{low:.3f} to {high:.3f}")
    console.print(table)
    console.print(done.verdict, markup=False)
    warned(done)
    if done.excluded:
        console.print(f"Left out: {done.excluded:,} photographs that the model had seen.", style="yellow")
    console.print(f"Report        {done.report}")


def warned(done: Evaluation, title: str = "") -> None:
    """Print a warning if a model is not better than a constant guess in some figure."""
    if done.warning:
        console.print(f"Warning: {title}{done.warning}", style="bold yellow", markup=False)


def comparison(done: Mapping[str, PipelineResult]) -> None:
    """Print a table of several pipelines: test figures, number of ranges, kept epoch and version."""
    table = Table(title="Results of each on its test photographs", title_justify="left")
    for heading in ("", *SHORT.values(), "ranges", "epoch", "version"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, one in done.items():
        values = [f"{one.evaluation.metrics[figure]:.3f}" for figure in SHORT]
        counts = (len(one.partition.test.ranges), one.model.epochs, one.registered.version)
        table.add_row(name, *values, *map(str, counts))
    console.print(table)
    for name, one in done.items():
        warned(one.evaluation, f"{name}: ")
    console.print("In MLflow each training has its precision, its recall and the error of both under curves/.")


def registered(new: Registered) -> None:
    """Print the alias of a version, and the reason."""
    console.print(f"Registered    [bold]{new.name}[/bold] version {new.version} as @{new.alias}: {new.reason}")


def contrasted(done: Compared) -> None:
    """Print how each model compares with the first: figures, verdict, and the slices on which they differ."""
    from agepipe.reports import comparison

    found = comparison.read(done)
    for title, one in zip(found.titles[1:], found.against, strict=True):
        console.print(_figures(title, one, found))
        console.print(comparison.verdict(title, found.titles[0], one, found), style="bold", markup=False)
        console.print(comparison.by_slice(title, one), markup=False)
        if one.exact:
            console.print(comparison.exact(title, found.titles[0], one.exact), markup=False)
    for note in filter(None, [comparison.excluded(found), *found.notes]):
        console.print(note, style="yellow", markup=False)
    console.print(f"Page          {done.page}")


def _figures(title: str, one: "PairedDifferences", found: "ModelComparison") -> Table:
    from agepipe.evaluation.figures import WORDS, figure, gap, gap_span

    table = Table(title=f"{title} against {found.titles[0]}, {found.count:,} photographs", title_justify="left")
    interval = f"{found.settings.confidence * 100:g} % interval"
    for heading in ("figure", found.titles[0], title, "difference", interval):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for name, change in one.figures.items():
        values = (figure(change.second, name), figure(change.first, name), gap(change.difference, name))
        table.add_row(WORDS[name], *values, gap_span((change.low, change.high), name))
    return table


def failure(title: str, error: AgepipeError) -> None:
    """Print the error of one of several pipelines."""
    console.print(f"{title}: {error}", style="red", markup=False)


def waiting(what: str) -> Status:
    """A spinner for work whose progress is unknown."""
    return console.status(f"{what} …")


def services(kept: Services, deployed: bool, experiment: str, runtime: Runtime) -> None:
    """Print the addresses of the services, of the experiment's runs in MLflow, and the password."""
    mlflow = kept.url("mlflow") or runtime.tracking.rstrip("/")
    for item in kept.services:
        console.print(f"{item.name:<8} {item.url or 'waiting for runs'}   log {item.log}")
    console.print(f"Runs     {mlflow}/#/experiments/{experiment}/runs?workflowType=machine_learning")
    if not deployed:
        console.print("No flow was deployed, since this folder has no prefect.yaml; run `agepipe up` in a checkout.")
    console.print(f"Password {access.kept(runtime)}   (in {access.file(runtime)})", markup=False)
    console.print("         Prefect asks for the whole text, MLflow for user and password: the parts around the colon.")
    if not access.private(runtime):
        console.print("Other users can read that file: its file system has no permissions.", style="yellow")
    if not is_loopback(kept.host):
        outer = kept.host if kept.host == reached(kept.host) else socket.gethostname()
        pages = [f"http://{netloc(outer, urlsplit(item.url).port or 0)}" for item in kept.services if item.url]
        warning = (
            f"Other machines open {' and '.join(pages)}. Who has the password can run programs as you, and http does "
            "not hide it: use a network that you trust, or a reverse proxy with https."
        )
        console.print(warning, style="yellow", highlight=False)
    console.print("\nAll commands now use these servers; [bold]agepipe down[/bold] stops them.")


def audit(data: list[str], ranges: str, runtime: Runtime) -> None:
    """Read photographs and print what they contain."""
    from agepipe.config.base import checked
    from agepipe.config.stages import IngestSettings, LabelSettings, SourceSettings
    from agepipe.data import sources
    from agepipe.reports import audit_artifact, data_text
    from tasks import data as stages
    from tasks.watch import watch

    spec = ranges if ranges in ("utkface", "years") else tuple(ranges.split(","))
    labels = checked(LabelSettings, {"ranges": spec}, "--ranges")
    with progress():
        source = sources.fingerprint(SourceSettings(data=tuple(data)), runtime, watch("source"))
        catalogue = stages.ingest(source, IngestSettings(), runtime)
    report = stages.audit(catalogue, labels, runtime)
    console.print(data_text.table(audit_artifact.read(report)))
    console.print(f"Report        {report.page}")
