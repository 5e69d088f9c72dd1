"""What a search costs beside its training: seconds a trial, against the number of trials.

    python -m benchmarks.orchestration [--trials 4 16 64] [--workers 1] [--rows 120]

Each number of trials gets a process, a workspace, a tracking store and a temporary Prefect server of its own, as a
first `agepipe run` would have, and the pipeline's own search over a grid of learning rates on two folds. The clock
starts where the pipeline calls the search: the server is up by then, the photographs are ingested.

    overhead = (wall time of the search × trials at a time − sum of the epochs' seconds) / trials

An epoch's seconds are training, judging and keeping the best weights. By default trials run one at a time: then nothing
of what a search does beside training is hidden behind another trial's training, and no epoch is slowed by it either.
With more at a time a worker that waits at the end counts as overhead, and so does what one trial takes from another.
All else is in it: Prefect's tasks, MLflow's runs, processes, tables, checkpoints, the import of torch.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from agepipe.config.runtime import Runtime
from agepipe.config.stages import IngestSettings, LabelSettings, LearnSettings, SearchSettings, SourceSettings
from agepipe.data.records import Rows
from agepipe.training.records import Choice

AIM = 0.3
"""Seconds a trial."""
GROWTH = 1.1
"""By which factor a trial of the largest search may cost more than one of the smallest; more is growth, not noise."""
FOLDS = 2


class Cost(NamedTuple):
    """Seconds of one search, summed over its trials but for `wall`."""

    trials: int
    wall: float
    """Wall time × trials at a time."""
    epochs: float
    process: float
    """Beside the epochs in `isolated`: start, imports, reading, building the network, checkpoints, end."""
    trial: float
    """Beside that in the library's trial: tables in, Parquet and manifest out."""
    stage: float
    """Beside that in the stage's body: MLflow and the progress files."""

    @property
    def overhead(self) -> float:
        """Seconds a trial beside its epochs."""
        return (self.wall - self.epochs) / self.trials

    @property
    def prefect(self) -> float:
        """What is left: Prefect's tasks and artifacts, records, the end of the flow, workers that wait."""
        return self.wall - self.epochs - self.process - self.trial - self.stage


def main() -> int:
    """Run a search of each size and print the table; the exit status is 1 above the aim, or when the cost grows."""
    arguments = _arguments()
    if arguments.alone:
        print(json.dumps(_measured(arguments.trials[0], arguments)))
        return 0
    costs = [_apart(count, arguments) for count in sorted(arguments.trials)]
    _print(costs, arguments)
    return int(any(cost.overhead > AIM for cost in costs) or costs[-1].overhead > GROWTH * costs[0].overhead)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[4, 16, 64], help=f"multiples of {FOLDS}")
    parser.add_argument("--workers", type=int, default=1, help="trials at a time")
    parser.add_argument("--rows", type=int, default=120, help="drawn faces, half of which a trial learns from")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _apart(count: int, arguments: argparse.Namespace) -> Cost:
    words = ["--alone", "--trials", f"{count}", "--workers", f"{arguments.workers}", "--rows", f"{arguments.rows}"]
    command = [sys.executable, "-m", "benchmarks.orchestration", *words]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return Cost(*json.loads(said.splitlines()[-1]))


def _measured(count: int, arguments: argparse.Namespace) -> Cost:
    with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as name:
        folder = Path(name)
        runtime = Runtime(
            workspace=folder, tracking=f"sqlite:///{folder}/mlruns/mlflow.db", device="cpu", workers=arguments.workers
        )
        rates = tuple(0.001 * (1 + step) for step in range(count // FOLDS))
        search = SearchSettings(grid={"lr": rates}, folds=FOLDS)
        return _searched(_rows(arguments.rows, runtime), search, runtime)


def _rows(count: int, runtime: Runtime) -> Rows:
    from agepipe.data.sources import fingerprint
    from tasks.data import ingest, relabel

    source = fingerprint(SourceSettings(data=("sample",), sample_count=count), runtime)
    return relabel(ingest(source, IngestSettings(size=36), runtime), LabelSettings(), runtime)


def _searched(rows: Rows, search: SearchSettings, runtime: Runtime) -> Cost:
    from flows.entry import enter

    server = enter(runtime)
    from prefect import flow

    from agepipe.registry import tracking
    from agepipe.search import trial
    from agepipe.training.worker import warm
    from flows import search as searching
    from tasks.trial import trial as stage

    learn = LearnSettings(network="shufflenet_v2_x0_5", size=32, batch=16, epochs=1)
    process, library, body = (_Watched(*place) for place in ((trial, "isolated"), (trial, "trial"), (stage.task, "fn")))

    @flow
    def pipeline() -> tuple[Choice, float]:
        tracking.prepare(runtime)
        start = time.perf_counter()
        return searching.search(rows, learn, search, runtime), time.perf_counter() - start

    warm()
    if server:
        server.wait()
    _, wall = pipeline()
    trials = [done for done in library.answers if done is not None]
    epochs = sum(done.seconds for done in trials)
    inner = (epochs, process.seconds, library.seconds, body.seconds)
    beside = (outer - inside for inside, outer in pairwise(inner))
    return Cost(len(trials), wall * runtime.trial_count, epochs, *beside)


class _Watched:
    """A function of a module or an object that is timed wherever it is called from."""

    def __init__(self, home: Any, name: str) -> None:
        self.seconds = 0.0
        self.answers: list[Any] = []
        setattr(home, name, self._timed(getattr(home, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            answer = function(*args, **kwargs)
            self.seconds += time.perf_counter() - start
            self.answers.append(answer)
            return answer

        return call


def _print(costs: list[Cost], arguments: argparse.Namespace) -> None:
    title = f"Seconds a trial, {arguments.workers} at a time, {arguments.rows} rows"
    table = Table(title=f"{title}; the aim is {AIM} beside the epochs, and no growth")
    for name in ("trials", "epochs", "beside them", "process", "tables", "MLflow", "Prefect and rest"):
        table.add_column(name, justify="right")
    for cost in costs:
        parts = (cost.epochs, cost.overhead * cost.trials, cost.process, cost.trial, cost.stage, cost.prefect)
        table.add_row(f"{cost.trials}", *(f"{part / cost.trials:.3f}" for part in parts))
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
