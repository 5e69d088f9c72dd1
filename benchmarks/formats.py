"""Which memory layout, precision and compilation train fastest on this machine: one bare loop each, in turns.

    python -m benchmarks.formats [--network shufflenet_v2_x1_0 --size 96] [--rounds 3]

The loop has forward, cross-entropy, backward and AdamW on batches that were made before (see `benchmarks.training`), on
a GPU where there is one. What the first epoch takes more than the others is beside it: compiling is paid by every
process that trains, a trial's too, and needs a C++ compiler. The pipeline takes channels_last everywhere, bfloat16 on
GPUs, and compiles nothing.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from agepipe.config.runtime import cores
from agepipe.config.stages import LearnSettings
from agepipe.training.worker import isolated
from benchmarks.training import USUAL, Bare, Way, drawn, parser_of

WAYS = {
    "channels_last": USUAL,
    "contiguous": Way(channels_last=False),
    "channels_last, bfloat16": Way(bfloat16=True),
    "channels_last, compiled": Way(compiled=True),
    "channels_last, bfloat16, compiled": Way(bfloat16=True, compiled=True),
}
"""The first is what the others are compared with."""


def main() -> None:
    """Run the rounds and print the table."""
    from benchmarks.formats import measured  # the process that trains finds it by this name

    arguments = _arguments()
    _print(arguments, isolated(measured, arguments))


def measured(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each way's epochs, the first of which pays for what is made ready once."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    learn = LearnSettings(network=arguments.network, size=arguments.size, batch=arguments.batch)
    with tempfile.TemporaryDirectory(prefix="agepipe-bench-") as folder:
        job = drawn(Path(folder), learn, arguments.rows, arguments.threads)
        loops = {name: Bare(job, WAYS[name], device) for name in arguments.only}
        rounds = [{name: loop.epoch() for name, loop in loops.items()} for _ in range(arguments.rounds + 1)]
        return {name: [one[name] for one in rounds] for name in loops}


def _arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each way, after one that makes ready")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), help="ways to compare")
    return parser.parse_args()


def _print(arguments: argparse.Namespace, found: dict[str, list[float]]) -> None:
    title = f"{arguments.network} at {arguments.size} px, batch {arguments.batch}, {arguments.threads} threads"
    table = Table(title=f"{title}, median of {arguments.rounds} epochs of {arguments.rows} rows")
    for name in ("", "images/s", "of the first", "more seconds in the first epoch"):
        table.add_column(name, justify="right" if name else "left")
    count = arguments.rows // arguments.batch * arguments.batch
    paces = {name: statistics.median(seconds[1:]) for name, seconds in found.items()}
    first = next(iter(paces.values()))
    for name, pace in paces.items():
        ready = max(0.0, found[name][0] - pace)
        table.add_row(name, f"{count / pace:,.0f}", f"{first / pace:.2f}", f"{ready:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
