"""The processes that share one training: each takes its part of every batch, and the gradients are averaged.

All draw the same order and the same augmentation for the whole batch, so what is left to differ from one process is
how sums are rounded, and two things: dropout draws other masks, and on a CPU batch norm takes its statistics from each
process's part alone, because torch has no `SyncBatchNorm` there. The running statistics are averaged before they are
used. One process has no part in any of this and does not import Lightning Fabric.
"""

import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from agepipe.core.errors import TrainingError
from agepipe.training.job import Seat
from agepipe.training.network import AgeNetwork

T = TypeVar("T")

TIMEOUT = timedelta(minutes=5)
"""How long a process waits for the others before it gives up; a checkpoint takes seconds."""
STATISTICS = ("running_mean", "running_var")
"""How the buffers are called that batch norm moves."""
FIRST, STRIDE = 7_919, 1_000_003
"""What the seeds of the draws inside a network are made with, so that those of two seeds, steps or ranks differ."""


class Alone:
    """One process: all that is shared is its own."""

    first = True
    """Whether this process writes the files."""

    def share(self, count: int) -> slice:  # noqa: ARG002
        """Which of `count` rows are this process's."""
        return slice(None)

    def weight(self, count: int) -> float:  # noqa: ARG002
        """By what to multiply a mean over this process's part of `count` rows, so that all average to the whole's."""
        return 1.0

    def counted(self, known: Sequence[Tensor]) -> Sequence[Tensor]:
        """By what to divide a sum over this process's part, so that all average to a mean over `known` rows."""
        return known

    def synchronised(self, network: AgeNetwork) -> AgeNetwork:
        """The network, with batch norm over all processes where torch has it."""
        return network

    def joined(self, network: AgeNetwork) -> Callable[[Tensor], Tensor]:
        """`network.everything`, so that gradients are averaged over all processes."""
        return network.everything

    def draws(self, seed: int, step: int) -> AbstractContextManager[None]:  # noqa: ARG002
        """Where the network may draw without moving the random state that all processes share."""
        return nullcontext()

    def settle(self, *networks: nn.Module) -> None:
        """Average the running statistics over all processes."""

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        return value

    def gathered(self, parts: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """What all processes have, the first one's before the second's."""
        return parts

    def agreed(self, value: T) -> T:
        """What the first process has."""
        return value

    def wait(self) -> None:
        """Go on once all processes are here."""

    def leave(self) -> None:
        """End the connection."""


class Together(Alone):
    """Several processes, each a rank of Lightning Fabric's distributed data parallel strategy."""

    def __init__(self, seat: Seat, device: torch.device) -> None:
        """Connect to the others and wait until all are there."""
        self.rank, self.count, self.device = seat.rank, seat.processes, device
        self.first = seat.rank == 0
        try:
            self.fabric = _fabric(seat, device)
        except torch.distributed.DistStoreError as error:
            raise TrainingError(
                f"machines: not all {seat.processes} processes on {seat.machines} machines met at {seat.host}:"
                f"{seat.port} within {TIMEOUT.total_seconds():.0f} s; run the same command again, and `agepipe join "
                f"{seat.host}:{seat.port}` on the others."
            ) from error

    def share(self, count: int) -> slice:
        """As even as possible, in the order of ranks."""
        return slice(count * self.rank // self.count, count * (self.rank + 1) // self.count)

    def weight(self, count: int) -> float:
        """1 where the parts are even."""
        mine = len(range(count)[self.share(count)])
        return mine * self.count / count

    def counted(self, known: Sequence[Tensor]) -> Sequence[Tensor]:
        """Row counts of all processes together, divided by the number of processes."""
        return [one / self.count for one in known]

    def synchronised(self, network: AgeNetwork) -> AgeNetwork:
        """On a GPU each batch norm becomes torch's `SyncBatchNorm`, whose weights have the same names."""
        if self.device.type != "cuda":
            return network
        return cast(AgeNetwork, nn.SyncBatchNorm.convert_sync_batchnorm(network))

    def joined(self, network: AgeNetwork) -> Callable[[Tensor], Tensor]:
        """Through torch's `DistributedDataParallel`."""
        module = self.fabric.setup_module(network, move_to_device=False)
        module.mark_forward_method("everything")
        return cast(Callable[[Tensor], Tensor], module.everything)

    @contextmanager
    def draws(self, seed: int, step: int) -> Iterator[None]:
        """Draws of this rank's own: the parts of a batch would otherwise have one mask."""
        own = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=own):
            torch.manual_seed((seed * STRIDE * FIRST + step * STRIDE + self.rank) % 2**63)
            yield

    @torch.no_grad()
    def settle(self, *networks: nn.Module) -> None:
        """One reduction for all of them."""
        named = (pair for network in networks for pair in network.named_buffers())
        moved = [one for name, one in named if name.endswith(STATISTICS)]
        if moved:
            flat = self.mean(torch.cat([one.flatten() for one in moved]))
            for one, now in zip(moved, flat.split([one.numel() for one in moved]), strict=True):
                one.copy_(now.view_as(one))

    def mean(self, value: Tensor) -> Tensor:
        """Reduced by the fabric."""
        return cast(Tensor, self.fabric.all_reduce(value, reduce_op="mean"))

    def gathered(self, parts: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """Once an epoch, by way of the CPU."""
        return list(chain.from_iterable(self._exchanged([tuple(one.cpu() for one in part) for part in parts])))

    def agreed(self, value: T) -> T:
        """Sent by the first."""
        return self._exchanged(value)[0]

    def _exchanged(self, value: T) -> list[T]:
        """The values of all processes, in the order of ranks.

        Sent as bytes of which only tensors and plain values are read: torch's own exchange of objects unpickles
        whatever the other machine sends.
        """
        mine = _packed(value).to(self.device)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.count)]
        torch.distributed.all_gather(sizes, torch.tensor([len(mine)], device=self.device))
        longest = max(int(size) for size in sizes)
        found = [mine.new_empty(longest) for _ in sizes]  # the values need not be of one size
        torch.distributed.all_gather(found, nn.functional.pad(mine, (0, longest - len(mine))))
        return [_unpacked(one[: int(size)]) for one, size in zip(found, sizes, strict=True)]

    def wait(self) -> None:
        """A barrier."""
        self.fabric.barrier()

    def leave(self) -> None:
        """Take the process group down."""
        torch.distributed.destroy_process_group()


def _packed(value: object) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)


def _unpacked(sent: Tensor) -> Any:
    return torch.load(io.BytesIO(sent.cpu().numpy().tobytes()), weights_only=True)


def gather(seat: Seat, device: torch.device) -> Alone:
    """The processes of a training as this one sees them."""
    return Alone() if seat.processes == 1 else Together(seat, device)


def _fabric(seat: Seat, device: torch.device) -> Any:
    """A fabric whose processes were started already, so that it only connects them."""
    machine, place = divmod(seat.rank, seat.here)
    os.environ.update(
        MASTER_ADDR=seat.host, MASTER_PORT=str(seat.port), LOCAL_RANK=str(place), NODE_RANK=str(machine),
        OMP_NUM_THREADS=str(torch.get_num_threads()),  # Fabric would set a number of its own
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its import says concerns its authors
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # statistics are averaged by `settle`; sending the first one's before each step would waste those of the others
    strategy = DDPStrategy(timeout=TIMEOUT, forward_sync_buffers=False, gradient_as_bucket_view=True)
    fabric = Fabric(
        accelerator=device.type, devices=seat.here, num_nodes=seat.machines, strategy=strategy,
        plugins=[LightningEnvironment()],
    )  # fmt: skip
    fabric.launch()
    return fabric
