"""One process with two threads beside two processes with one thread each that average their gradients.

    python -m benchmarks.processes [--network shufflenet_v2_x0_5 --size 96] [--rounds 3] [--augment]

Both are the pipeline's training of the same rows, network and batch, in turns, since a machine has good and bad
minutes; the first epoch of each is left out. The medians and the median of the turns' ratios are printed.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agepipe.config.stages import LearnSettings
from agepipe.training.job import Job
from agepipe.training.workdir import shared
from benchmarks.training import augmentation, drawn, parser_of

EPOCHS = 3
"""Of each training; the first is left out."""


def main() -> int:
    """Run the turns and print the table."""
    arguments = _arguments()
    learn = LearnSettings(
        network=arguments.network,
        size=arguments.size,
        batch=arguments.batch,
        epochs=EPOCHS,
        augment=augmentation(arguments),
    )
    with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as folder:
        job = drawn(Path(folder), learn, arguments.rows, 2)
        turns = [(_seconds(job, 1, turn), _seconds(job, 2, turn)) for turn in range(arguments.rounds)]
    _print(arguments, turns)
    return 0


def _arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="trainings that each of the two gets")
    return parser.parse_args()


def _seconds(job: Job, processes: int, turn: int) -> float:
    """Of a median epoch."""
    folder = job.folder.with_name(f"{processes}-{turn}")
    fitted = shared(replace(job, folder=folder, threads=2 // processes), processes)
    return statistics.median(row["seconds"] for row in fitted.curves[1:])


def _print(arguments: argparse.Namespace, turns: list[tuple[float, float]]) -> None:
    title = f"{arguments.network} at {arguments.size} px, batch {arguments.batch}"
    table = Table(title=f"{title}, median of {len(turns)} trainings over {arguments.rows} rows")
    for name in ("", "images/s", "ratio"):
        table.add_column(name, justify="right" if name else "left")
    one, two = (statistics.median(column) for column in zip(*turns, strict=True))
    count = arguments.rows // arguments.batch * arguments.batch
    table.add_row("one process, two threads", f"{count / one:,.0f}", "1.00")
    ratio = statistics.median(first / second for first, second in turns)
    table.add_row("two processes, one thread each", f"{count / two:,.0f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
