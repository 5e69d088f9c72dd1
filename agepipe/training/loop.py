"""The training loop of trials and of the final model: train, validate, write checkpoints, keep the best epoch.

All random numbers follow from `learn.seed`. On a CPU, with the same number of threads, a training that was killed and
resumed ends with the same weights, bit for bit, as one that was not killed.
"""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import deterministic

from agepipe.config.stages import LOWER_IS_BETTER
from agepipe.core.errors import DivergedError, ModelError, TrainingError
from agepipe.data.pixel_store import open_pixels
from agepipe.training import checkpoints
from agepipe.training.augment import Part, augment, mix
from agepipe.training.backbones import normalisation
from agepipe.training.batches import Batch, Batches, statistics
from agepipe.training.distributed import Processes
from agepipe.training.epoch_predictions import EpochPredictions
from agepipe.training.job import Channels, EpochEvent, Fitted, Job, Precision
from agepipe.training.network import AgeNetwork, build
from agepipe.training.objective import Objective, known_counts
from agepipe.training.optimizer import Average, optimizer, schedule
from agepipe.training.progressive_resizing import epochs_below, shrunk, side_of

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
"""File with everything needed to resume after the last finished epoch."""
BEST = "best.pt"
"""File with the state dict of the best epoch: of the averaged weights, if an average is kept."""
CHECK_EVERY = 20
"""Steps between checks that the loss is finite; on a GPU each check waits for the device."""
OUT_OF_MEMORY = ("can't allocate memory", "could not create a primitive", "could not create a memory")
"""Messages of torch and oneDNN when a CPU has no memory left; they raise no class of their own."""
VALIDATION_BATCH = 256
"""Rows in a batch of the validation."""


def fit(job: Job, on_epoch: Callable[[EpochEvent], None] | None = None) -> Fitted:
    """Train a network, and write `BEST` into `job.folder`; a checkpoint there is resumed.

    Args:
        job: rows, settings and folder.
        on_epoch: called after each epoch.

    Raises:
        TrainingError: the loss is not finite, memory is short, or the disk is full; the last checkpoint is kept.
        ConfigError: the network is not known, or a batch is larger than the training rows.
        DataError: the pixel store cannot be used.
        ModelError: a file in the folder is damaged.
    """
    try:
        training = Training(job)
        while not training.finished:
            event = training.epoch()
            if on_epoch:
                on_epoch(event)
        fitted = training.result()
        training.processes.close()
        return fitted
    except (RuntimeError, MemoryError) as error:
        out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if out_of_memory or any(message in str(error) for message in OUT_OF_MEMORY):
            raise TrainingError(
                f"learn.batch: no memory for {job.learn.batch} pictures of {job.learn.size} px at a time; take less, "
                "or fewer trials at a time (--workers, --gpu-trials)."
            ) from error
        raise


class Training:
    """The state of a training, which `epoch` advances by one epoch."""

    def __init__(self, job: Job) -> None:
        """Resume from the checkpoint in the job's folder, or start from the seed if there is none.

        Raises:
            AgepipeError: as `fit`.
        """
        self.job, self.learn = job, job.learn
        job.folder.mkdir(parents=True, exist_ok=True)
        self.device = _device(job)
        self.processes = Processes(job.seat, self.device)
        # only the first process has files, since the others may be on machines that do not see its folder
        saved = self.processes.broadcast(checkpoints.load(job.folder / CHECKPOINT) if self.processes.is_first else None)
        store = open_pixels(job.pixels)
        self.train = Batches(store, job.train, self.learn.batch, self.device)
        self.mean, self.std = self._statistics(saved)
        torch.manual_seed(self.learn.seed)
        network = build(self.learn, job.ranges, self.mean, self.std)
        self.processes.share_weights(network)
        self.network = self.processes.sync_batch_norm(network.to(self.device))
        self.average = Average(self.network, self.learn.average) if self.learn.average > 0 else None
        # needs less memory than a training step, so that a smaller learn.batch always helps
        size = min(VALIDATION_BATCH, 8 * self.learn.batch)
        validated = len(job.validation) > 0
        self.validation = Batches.for_validation(store, job.validation, size, self.device) if validated else None
        labels = torch.from_numpy(job.train.labels)
        self.objective = Objective(self.learn, job.ranges, self.network.readout, labels).to(self.device)
        self.optimizer = optimizer(self.learn, self.network)
        self.schedule = schedule(self.learn, self.optimizer, self.learn.epochs * len(self.train))
        self.forward = self.processes.data_parallel(self.network)
        self.precision = precision(self.device, self.network)
        self.curves: list[dict[str, float]] = []
        self.best, self.best_score = 0, -math.inf
        # probabilities of the validation rows in the last and in the best epoch, (n, classes)
        self._last_probabilities = self._best_probabilities = torch.empty((0, len(job.ranges)))
        if saved is not None:
            self._restore(saved)

    @property
    def finished(self) -> bool:
        """Whether all epochs until the job's end or pause are done, or early stopping ended the training."""
        return len(self.curves) >= min(self.learn.epochs, self.job.until or self.learn.epochs) or self._stops_early

    @property
    def _stops_early(self) -> bool:
        since = max(self.best, epochs_below(self.learn))
        return self.job.patience is not None and len(self.curves) - since >= self.job.patience

    def epoch(self) -> EpochEvent:
        """Train and validate one epoch, and write the checkpoint, and `BEST` if the epoch is the best so far.

        Without `Job.keep_last` neither is written after the last epoch.
        """
        start = time.perf_counter()
        metrics = self.processes.broadcast({**self._train(), **self._validate()})
        lr = max(float(group["lr"]) for group in self.optimizer.param_groups)
        self.curves.append({"epoch": len(self.curves) + 1, "lr": lr, "seconds": 0.0, **metrics})
        if better := (score := self._score(metrics)) > self.best_score:
            self.best, self.best_score = len(self.curves), score
            self._best_probabilities = self._last_probabilities
        self.curves[-1]["seconds"] = time.perf_counter() - start
        if self.job.keep_last or not self.finished:
            self._save(self._state(), CHECKPOINT)
            if better:
                self._save_best()
        done, epochs, seconds = len(self.curves), self.learn.epochs, self.curves[-1]["seconds"]
        return EpochEvent(done, epochs, metrics, lr, seconds, early=self._stops_early and done < epochs)

    def autocast(self) -> torch.autocast:
        """A block in which convolutions and products of matrices have the precision of this training."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _save_best(self) -> None:
        """Write `BEST`; the last epoch must be the best one."""
        network = self.evaluated_network.state_dict()
        self._save({"epoch": self.best, "network": network, "probabilities": self._best_probabilities}, BEST)

    def _save(self, state: dict[str, Any], name: str) -> None:
        if self.processes.is_first:
            checkpoints.save(state, self.job.folder / name)

    def _score(self, metrics: dict[str, float]) -> float:
        """The score of which the best epoch has the largest; without validation rows or metric the last is the best."""
        if self.validation is None or self.job.metric is None:
            return len(self.curves)
        return metrics[f"validation_{self.job.metric}"] * (-1 if self.job.metric in LOWER_IS_BETTER else 1)

    @property
    def evaluated_network(self) -> AgeNetwork:
        """The network that is validated and saved: that of the averaged weights, if an average is kept."""
        return self.average.network if self.average else self.network

    def result(self) -> Fitted:
        """The result so far: curves, and epoch, figures and probabilities of the best epoch."""
        best = self.curves[self.best - 1]
        metrics = {name.removeprefix("validation_"): best[name] for name in best if name.startswith("validation_")}
        return Fitted(
            curves=self.curves, best=self.best, metrics=metrics, mean=self.mean, std=self.std,
            probabilities=self._best_probabilities.numpy(),
            precision=self.precision, parameters=sum(one.numel() for one in self.network.parameters()),
            seconds=sum(row["seconds"] for row in self.curves),
        )  # fmt: skip

    def _train(self) -> dict[str, float]:
        self.network.train()
        predictions = EpochPredictions(self.network, self.learn.decoding)
        total = torch.zeros((), device=self.device)
        shard = self.processes.shard(self.train.size)
        for step, batch in enumerate(self.train.shuffled(self._part.rows)):
            loss, logits = self._step(batch, shard)
            total += loss
            predictions.add(batch.labels_of(shard), *self.network.readout(logits.softmax(1)))
            if step % CHECK_EVERY == 0:
                self._check(loss)
        self._check(total)
        self.processes.average_statistics(*([self.network, self.average.network] if self.average else [self.network]))
        predictions.gather(self.processes)
        objective = float(self.processes.mean(total)) / len(self.train)
        return {"train_objective": objective, **predictions.figures("train_")}

    @property
    def _part(self) -> Part:
        """The pictures of a batch that this process reads and augments: its shard, or all if they are mixed."""
        count = self.train.size
        if self.learn.augment.mix > 0:  # a partner may be in any shard
            return Part.whole(count)
        return Part(count, self.processes.shard(count), lambda mean: self.processes.mean_of_shards(mean, count))

    def _step(self, batch: Batch, shard: slice) -> tuple[Tensor, Tensor]:
        side, part = side_of(self.learn, len(self.curves) + 1), self._part
        levels = augment(shrunk(batch.images, self.learn.size, side), side, self.learn.augment, part)
        mixed = mix(levels, batch.ages, self.learn.augment.mix)
        own = mixed.levels if part.rows == shard else mixed.levels[shard]
        with self.autocast(), self.processes.fork_rng(self.learn.seed, self.schedule.last_epoch):
            logits = self.forward(own)
        loss = self._loss(logits, batch, shard)
        if mixed.share < 1:
            partners = self._loss(logits, batch.with_labels_of(mixed.partner), shard)
            loss = mixed.share * loss + (1 - mixed.share) * partners
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.learn.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.learn.clip)
        self.optimizer.step()
        self.schedule.step()
        if self.average:
            self.average.update(self.network)
        return loss.detach(), logits[:, : self.network.readout.outputs].detach()

    def _loss(self, logits: Tensor, batch: Batch, shard: slice) -> Tensor:
        """The loss of this process's shard, scaled so that the mean over processes is the loss of the batch."""
        outputs, rows, weight = (
            self.network.readout.outputs,
            batch.labels_of(shard),
            self.processes.loss_weight(self.train.size),
        )
        loss: Tensor = self.objective(self.network, logits[:, :outputs], rows.labels, rows.ages, weight)
        if self.learn.helpers > 0:
            divisors = self.processes.divisors(known_counts(batch.genders, batch.races))
            loss = loss + self.objective.helper_loss(logits[:, outputs:], rows.genders, rows.races, divisors)
        return loss

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        network = self.evaluated_network.eval()
        predictions = EpochPredictions(network, self.learn.decoding)
        for batch in self.validation.in_order(self.processes.shard(len(self.job.validation))):
            with self.autocast():
                distribution = network.distribution(batch.images)
            # outside, since the sums over years would be rounded to three digits, and the calibration with them
            predictions.add(batch, *network.readout(distribution))
        predictions.gather(self.processes)
        self._check(predictions.total())  # the weights may have diverged in the last step, after its loss
        self._last_probabilities = predictions.probabilities
        return predictions.figures("validation_")

    def _check(self, loss: Tensor) -> None:
        if not math.isfinite(float(loss)):
            raise DivergedError(
                f"learn.lr: with {self.learn.lr} the loss is {float(loss)} in epoch {len(self.curves) + 1}; take a "
                "smaller one (the last good checkpoint is kept)."
            )

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(), "random": checkpoints.random_state(self.device),
            "average": self.average.network.state_dict() if self.average else {},
            "average_steps": self.average.steps if self.average else 0,
            "curves": self.curves, "best": self.best, "best_score": self.best_score, "said": self._last_probabilities,
            "mean": self.mean, "std": self.std,
        }  # fmt: skip

    def _restore(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        if self.average:
            self.average.network.load_state_dict(saved["average"])
            self.average.steps = saved["average_steps"]
        self.curves, self.best, self.best_score = saved["curves"], saved["best"], saved["best_score"]
        if self.processes.is_first:
            self._restore_best(saved)
        checkpoints.restore_random_state(saved["random"], self.device)
        log.info("resuming after epoch %d of %d", len(self.curves), self.learn.epochs)

    def _restore_best(self, saved: dict[str, Any]) -> None:
        best = checkpoints.load(self.job.folder / BEST)
        if best is not None and best["epoch"] == self.best:
            self._best_probabilities = best["probabilities"]
        elif self.best == len(self.curves):  # killed after CHECKPOINT and before BEST, whose content CHECKPOINT has
            self._best_probabilities = saved["said"]
            self._save_best()
        else:
            raise ModelError(
                f"{self.job.folder / BEST}: it does not hold the weights of epoch {self.best}, the best so far; delete "
                f"{self.job.folder} to start again."
            )

    def _statistics(self, saved: dict[str, Any] | None) -> tuple[Channels, Channels]:
        """Mean and standard deviation of the training pictures, or those of the pretraining."""
        if saved is not None:
            return saved["mean"], saved["std"]
        part = self.processes.shard(len(self.job.train))
        return normalisation(self.learn) or statistics(self.train.blocks(part), self.processes.sum)


def _device(job: Job) -> torch.device:
    """Choose the device, set the number of threads, and on a CPU make torch use deterministic algorithms only."""
    kind = job.device if job.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device: 'cuda', but torch finds no GPU; take 'cpu' or 'auto'.")
    torch.set_num_threads(job.threads)
    if kind == "cpu":
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # takes a tenth of a step
    return torch.device(kind) if kind == "cpu" or job.gpu is None else torch.device(kind, job.gpu)


def precision(device: torch.device, network: nn.Module) -> Precision:
    """The faster precision for the convolutions of a training.

    bfloat16 is faster on a GPU, and on a CPU with AMX if no convolution is grouped; docs/measured.md has figures.
    """
    if device.type == "cuda":
        return "bfloat16"
    grouped = any(isinstance(part, nn.Conv2d) and part.groups > 1 for part in network.modules())
    return "bfloat16" if torch.cpu.get_capabilities().get("amx_bf16") and not grouped else "float32"


def network_of(job: Job, fitted: Fitted, path: Path) -> AgeNetwork:
    """The network that a training saved, on the CPU, in evaluation mode.

    Args:
        job: the training.
        fitted: its result.
        path: `BEST` in its folder.

    Raises:
        ModelError: the file is damaged or missing.
    """
    network = build(job.learn, job.ranges, fitted.mean, fitted.std)
    state = checkpoints.load(path) or {}
    network.load_state_dict(state.get("network", {}))
    return network.eval()
