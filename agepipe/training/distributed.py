"""Data-parallel training: each process computes its shard of every batch, and the gradients are averaged.

All processes draw the same order of rows and the same random numbers of the augmentation for the whole batch, and read
and augment their shard, or the whole batch if pictures are mixed with others of it. So the result differs from that of
one process only in how sums are rounded, and in two points: dropout draws other masks, and on a CPU batch norm takes
its statistics from each shard alone, because torch has no `SyncBatchNorm` there. The running statistics are averaged
over processes before they are used. With one process nothing here applies, and Lightning Fabric is not imported.
"""

import io
import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar, cast

import psutil
import torch
from torch import Tensor, nn

from agepipe.core.errors import TrainingError
from agepipe.training.job import Seat
from agepipe.training.network import AgeNetwork

T = TypeVar("T")

TIMEOUT = timedelta(minutes=5)
"""Timeout of connecting and of each collective operation; writing a checkpoint takes seconds."""
INTERFACE = "GLOO_SOCKET_IFNAME"
"""Environment variable that names the network interface through which CPU processes exchange tensors."""
STATISTICS = ("running_mean", "running_var")
"""Names of batch norm's running statistics."""
SEED_FACTOR, STEP_FACTOR = 7_919, 1_000_003
"""Factors that make the seeds of random numbers inside a network differ between seeds, steps and ranks."""


class Processes:
    """The processes of a training, as one of them uses them; several are ranks of Lightning Fabric's DDP strategy.

    With one process, collective operations return their argument.
    """

    def __init__(self, seat: Seat, device: torch.device) -> None:
        """Connect to the other processes, if there are any.

        Raises:
            TrainingError: not all processes have connected within `TIMEOUT`.
        """
        self.rank, self.count, self.device = seat.rank, seat.processes, device
        self.is_first = seat.rank == 0  # writes the files
        self.fabric: Any = None
        if seat.processes == 1:
            return
        try:
            _connect(seat, device)
        except torch.distributed.DistError as error:
            raise TrainingError(
                f"the {seat.processes} processes of the training have not met at {seat.host}:{seat.port} within "
                f"{TIMEOUT.total_seconds():.0f} s; run the same command again on all machines."
            ) from error
        self.fabric = _fabric(seat, device)

    def shard(self, count: int) -> slice:
        """The rows of a batch of `count` rows that this process computes: as even as possible, in order of ranks."""
        return slice(count * self.rank // self.count, count * (self.rank + 1) // self.count)

    def loss_weight(self, count: int) -> float:
        """Factor of the mean over this shard, so that the mean over processes is the mean over all `count` rows."""
        return len(range(count)[self.shard(count)]) * self.count / count

    def divisors(self, counts: Sequence[Tensor]) -> Sequence[Tensor]:
        """Divisors of sums over this shard, so that the mean over processes is each sum divided by its count.

        Args:
            counts: counts over the whole batch.
        """
        return [one / self.count for one in counts]

    def sync_batch_norm(self, network: AgeNetwork) -> AgeNetwork:
        """On several GPUs convert batch norm to torch's `SyncBatchNorm`, which keeps the names of the weights."""
        if self.fabric is None or self.device.type != "cuda":
            return network
        return cast(AgeNetwork, nn.SyncBatchNorm.convert_sync_batchnorm(network))

    def data_parallel(self, network: AgeNetwork) -> Callable[[Tensor], Tensor]:
        """`network.all_logits`, by `DistributedDataParallel` if there are several processes."""
        if self.fabric is None:
            return network.all_logits
        module = self.fabric.setup_module(network, move_to_device=False)
        module.mark_forward_method("all_logits")
        return cast(Callable[[Tensor], Tensor], module.all_logits)

    @contextmanager
    def fork_rng(self, seed: int, step: int) -> Iterator[None]:
        """Seed the random state by the rank for a while; otherwise dropout would use the same mask on each shard."""
        if self.fabric is None:
            yield
            return
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed((seed * STEP_FACTOR * SEED_FACTOR + step * STEP_FACTOR + self.rank) % 2**63)
            yield

    @torch.no_grad()
    def average_statistics(self, *networks: nn.Module) -> None:
        """Average the running statistics of batch norm over processes in one reduction, in place."""
        named = (pair for network in networks for pair in network.named_buffers())
        buffers = [buffer for name, buffer in named if name.endswith(STATISTICS)]
        if self.fabric is not None and buffers:
            flat = self.mean(torch.cat([buffer.flatten() for buffer in buffers]))
            for buffer, mean in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
                buffer.copy_(mean.view_as(buffer))

    def mean(self, value: Tensor) -> Tensor:
        """The mean over processes."""
        return value if self.fabric is None else cast(Tensor, self.fabric.all_reduce(value, reduce_op="mean"))

    def mean_of_shards(self, value: Tensor, count: int) -> Tensor:
        """The mean over a batch of `count` rows, given the mean over this shard."""
        return value if self.fabric is None else self.mean(value * self.loss_weight(count))

    def sum(self, value: Tensor) -> Tensor:
        """The sum over processes, on the CPU."""
        if self.fabric is None:
            return value
        return cast(Tensor, self.fabric.all_reduce(value.to(self.device), reduce_op="sum")).cpu()

    def share_weights(self, network: nn.Module) -> None:
        """Load the weights of the first process, since the others may not have the file that it started from."""
        if self.fabric is not None:
            network.load_state_dict(self.broadcast(network.state_dict()))

    def all_gather(self, parts: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """The parts of all processes in the order of ranks, on the CPU if there are several."""
        if self.fabric is None:
            return parts
        return list(chain.from_iterable(self._exchange([tuple(one.cpu() for one in part) for part in parts])))

    def broadcast(self, value: T) -> T:
        """The value of the first process; tensors and plain values only.

        It is sent as bytes and read with `weights_only`, as is what `all_gather` sends; torch's own functions for
        objects would unpickle anything that another machine sends.
        """
        if self.fabric is None:
            return value
        sent = _packed(value if self.is_first else None).to(self.device)
        length = torch.tensor([len(sent)], device=self.device)
        torch.distributed.broadcast(length, 0)
        sent = sent if self.is_first else sent.new_empty(int(length))
        torch.distributed.broadcast(sent, 0)
        return value if self.is_first else cast(T, _unpacked(sent))

    def _exchange(self, value: T) -> list[T]:
        """The values of all processes, in the order of ranks."""
        mine = _packed(value).to(self.device)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.count)]
        torch.distributed.all_gather(sizes, torch.tensor([len(mine)], device=self.device))
        longest = max(int(size) for size in sizes)
        found = [mine.new_empty(longest) for _ in sizes]  # all_gather needs tensors of equal size
        torch.distributed.all_gather(found, nn.functional.pad(mine, (0, longest - len(mine))))
        return [_unpacked(one[: int(size)]) for one, size in zip(found, sizes, strict=True)]

    def close(self) -> None:
        """Destroy the process group."""
        if self.fabric is not None:
            torch.distributed.destroy_process_group()


def _packed(value: object) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)


def _unpacked(sent: Tensor) -> Any:
    return torch.load(io.BytesIO(sent.cpu().numpy().tobytes()), weights_only=True)


def _connect(seat: Seat, device: torch.device) -> None:
    """Make the process group of a training."""
    if device.type == "cpu" and INTERFACE not in os.environ and (name := _interface(seat.host)):
        os.environ[INTERFACE] = name
    hosts = seat.rank == 0 and not seat.prefix
    store = torch.distributed.TCPStore(
        seat.host, seat.port, is_master=hosts, timeout=TIMEOUT, wait_for_workers=False, multi_tenant=hosts
    )
    torch.distributed.init_process_group(
        "gloo" if device.type == "cpu" else "nccl", store=torch.distributed.PrefixStore(seat.prefix, store),
        rank=seat.rank, world_size=seat.processes, timeout=TIMEOUT,
        device_id=None if device.type == "cpu" else device,
    )  # fmt: skip


def _interface(host: str) -> str:
    """The network interface through which this machine reaches the first process; empty if it is this machine's own.

    Without it gloo takes the address of this machine's name, which is often one that no other machine reaches.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 1))  # sends nothing
        except OSError:
            return ""
        own = probe.getsockname()[0]
    names = [name for name, addresses in psutil.net_if_addrs().items() if own in {one.address for one in addresses}]
    return "" if own.startswith("127.") or not names else names[0]


def _fabric(seat: Seat, device: torch.device) -> Any:
    """Create a Fabric for processes that are connected already; to it each is a machine with one device."""
    os.environ.update(
        LOCAL_RANK="0", NODE_RANK=str(seat.rank),
        OMP_NUM_THREADS=str(torch.get_num_threads()),  # otherwise Fabric sets its own number
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import warns of its own deprecations
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # `average_statistics` averages the buffers; DDP would overwrite them with those of the first process in each step
    strategy = DDPStrategy(timeout=TIMEOUT, forward_sync_buffers=False, gradient_as_bucket_view=True)
    fabric = Fabric(
        accelerator=device.type, devices=1 if device.type == "cpu" else [device.index or 0], num_nodes=seat.processes,
        strategy=strategy, plugins=[LightningEnvironment()],
    )  # fmt: skip
    fabric.launch()
    return fabric
