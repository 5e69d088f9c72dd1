"""One training, the same for trials and for the final model: a fresh network, epochs, checkpoints, the best epoch.

Everything random follows from `learn.seed`. On a CPU, with the same number of threads, a training that was killed
and goes on ends with the same weights, bit for bit, as one that was not.
"""

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import deterministic

from agepipe.config.stages import LOWER_IS_BETTER
from agepipe.core.errors import DivergedError, ModelError, TrainingError
from agepipe.evaluation.metrics import Judged, checked, figures
from agepipe.model.decoding import Decoding, decide
from agepipe.training import checkpoints
from agepipe.training.augment import augment, mix
from agepipe.training.backbones import normalisation
from agepipe.training.batches import Batch, Batches, open_store, statistics
from agepipe.training.distributed import Alone, gather
from agepipe.training.job import Channels, EpochEvent, Fitted, Job
from agepipe.training.network import AgeNetwork, build
from agepipe.training.objective import Objective, known
from agepipe.training.optimizer import Average, optimizer, schedule
from agepipe.training.progressive_resizing import epochs_below, shrunk, side_of

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
"""All that is needed to go on after the last finished epoch."""
BEST = "best.pt"
"""State dict of the network at the best epoch: the averaged weights, where an average is kept."""
CHECK_EVERY = 20
"""Steps between looks at the loss; on a GPU each look waits for the device."""
NO_MEMORY = ("can't allocate memory", "could not create a primitive", "could not create a memory")
"""What torch and oneDNN say on a CPU when they get no memory; they have no class of error for it."""
JUDGE_BATCH = 256
"""Pictures at a time when nothing is learnt from them."""


def fit(job: Job, on_epoch: Callable[[EpochEvent], None] | None = None) -> Fitted:
    """Train to the end, going on from a checkpoint in `job.folder` where there is one; `BEST` lies there afterwards.

    Raises:
        TrainingError: the loss is not finite, memory is short, or the disk is full; the last checkpoint is kept.
        ConfigError: the network is not known, or a batch is larger than the training rows.
        DataError: the pixel store cannot be used.
        ModelError: what lies in the folder is damaged.
    """
    try:
        training = Training(job)
        while not training.finished:
            event = training.epoch()
            if on_epoch:
                on_epoch(event)
        fitted = training.fitted()
        training.peers.leave()
        return fitted
    except (RuntimeError, MemoryError) as error:
        short = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if short or any(words in str(error) for words in NO_MEMORY):
            raise TrainingError(
                f"learn.batch: no memory for {job.learn.batch} pictures of {job.learn.size} px at a time; take less, "
                "or fewer trials at a time (--workers, --gpu-trials)."
            ) from error
        raise


class Training:
    """A training in progress: what a checkpoint holds, and how to go on by one epoch."""

    def __init__(self, job: Job) -> None:
        """Start anew from the seed, or from the checkpoint that lies in the job's folder."""
        self.job, self.learn = job, job.learn
        job.folder.mkdir(parents=True, exist_ok=True)
        self.device = _device(job)
        self.peers = gather(job.seat, self.device)
        saved = checkpoints.load(job.folder / CHECKPOINT)
        store = open_store(job.pixels)
        self.train = Batches(store, job.train, self.learn.batch, self.device)
        self.mean, self.std = _statistics(saved, self.train, job)
        torch.manual_seed(self.learn.seed)
        self.network = self.peers.synchronised(build(self.learn, job.ranges, self.mean, self.std).to(self.device))
        self.average = Average(self.network, self.learn.average) if self.learn.average > 0 else None
        judged = len(job.validation) > 0
        size = min(JUDGE_BATCH, 8 * self.learn.batch)  # less memory than a step, so that a smaller batch always helps
        self.validation = Batches.whole(store, job.validation, size, self.device) if judged else None
        labels = torch.from_numpy(job.train.labels)
        self.objective = Objective(self.learn, job.ranges, self.network.readout, labels).to(self.device)
        self.optimizer = optimizer(self.learn, self.network)
        self.schedule = schedule(self.learn, self.optimizer, self.learn.epochs * len(self.train))
        self.answer = self.peers.joined(self.network)
        self.curves: list[dict[str, float]] = []
        self.best, self.best_score = 0, -math.inf
        self._said = self._kept = torch.empty((0, len(job.ranges)))  # of the last epoch, of the best
        if saved is not None:
            self._restore(saved)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or those that the job pauses after, or patience has run out."""
        return len(self.curves) >= min(self.learn.epochs, self.job.until or self.learn.epochs) or self._impatient

    @property
    def _impatient(self) -> bool:
        since = max(self.best, epochs_below(self.learn))
        return self.job.patience is not None and len(self.curves) - since >= self.job.patience

    def epoch(self) -> EpochEvent:
        """Train one epoch, judge it, keep it if it is the best, and write the checkpoint."""
        start = time.perf_counter()
        metrics = self.peers.agreed({**self._train(), **self._validate()})
        lr = max(float(group["lr"]) for group in self.optimizer.param_groups)
        self.curves.append({"epoch": len(self.curves) + 1, "lr": lr, "seconds": 0.0, **metrics})
        if better := (score := self._score(metrics)) > self.best_score:
            self.best, self.best_score, self._kept = len(self.curves), score, self._said
        self.curves[-1]["seconds"] = time.perf_counter() - start
        self._save(self._state(), CHECKPOINT)
        if better:
            self._keep()
        self.peers.wait()  # what is written is there for all
        done, epochs, seconds = len(self.curves), self.learn.epochs, self.curves[-1]["seconds"]
        return EpochEvent(done, epochs, metrics, lr, seconds, early=self._impatient and done < epochs)

    def _keep(self) -> None:
        """Write the network of the best epoch, which is the last one."""
        kept = {"epoch": self.best, "network": self.judged.state_dict(), "probabilities": self._kept}
        self._save(kept, BEST)

    def _save(self, state: dict[str, Any], name: str) -> None:
        if self.peers.first:
            checkpoints.save(state, self.job.folder / name)

    def _score(self, metrics: dict[str, float]) -> float:
        """What the best epoch has most of; without validation rows or a metric that is the last one."""
        if self.validation is None or self.job.metric is None:
            return len(self.curves)
        return metrics[f"validation_{self.job.metric}"] * (-1 if self.job.metric in LOWER_IS_BETTER else 1)

    @property
    def judged(self) -> AgeNetwork:
        """The network that is judged and kept: the averaged one, where an average is kept."""
        return self.average.network if self.average else self.network

    def fitted(self) -> Fitted:
        """What came out."""
        kept = self.curves[self.best - 1]
        metrics = {name.removeprefix("validation_"): kept[name] for name in kept if name.startswith("validation_")}
        return Fitted(
            curves=self.curves, best=self.best, metrics=metrics, mean=self.mean, std=self.std,
            probabilities=self._kept.numpy(),
            parameters=sum(one.numel() for one in self.network.parameters()),
            seconds=sum(row["seconds"] for row in self.curves),
        )  # fmt: skip

    def _train(self) -> dict[str, float]:
        self.network.train()
        answers, total = Answers(self.network, self.learn.decoding), torch.zeros((), device=self.device)
        share = self.peers.share(self.train.size)
        for step, batch in enumerate(self.train.shuffled()):
            loss, logits = self._step(batch, share)
            total += loss
            answers.add(batch.part(share), logits.softmax(1))
            if step % CHECK_EVERY == 0:
                self._check(loss)
        self._check(total)
        self.peers.settle(*([self.network, self.average.network] if self.average else [self.network]))
        answers.gather(self.peers)
        return {"train_objective": float(self.peers.mean(total)) / len(self.train), **answers.figures("train_")}

    def _step(self, batch: Batch, share: slice) -> tuple[Tensor, Tensor]:
        side = side_of(self.learn, len(self.curves) + 1)
        levels = augment(shrunk(batch.images, self.learn.size, side), side, self.learn.augment)
        mixed = mix(levels, batch.ages, self.learn.augment.mix)
        with _precision(self.device), self.peers.draws(self.learn.seed, self.schedule.last_epoch):
            logits = self.answer(mixed.levels[share])
        loss = self._loss(logits, batch, share)
        if mixed.share < 1:
            partners = self._loss(logits, batch.answering(mixed.partner), share)
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

    def _loss(self, logits: Tensor, batch: Batch, share: slice) -> Tensor:
        """That of this process's share of a batch, scaled so that the mean over processes is that of the whole."""
        outputs, mine, weight = self.network.readout.outputs, batch.part(share), self.peers.weight(self.train.size)
        loss: Tensor = self.objective(self.network, logits[:, :outputs], mine.labels, mine.ages, weight)
        if self.learn.helpers > 0:
            counts = self.peers.counted(known(batch.genders, batch.races))
            loss = loss + self.objective.helping(logits[:, outputs:], mine.genders, mine.races, counts)
        return loss

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        network = self.judged.eval()
        answers = Answers(network, self.learn.decoding)
        for batch in self.validation.in_order(self.peers.share(len(self.job.validation))):
            with _precision(self.device):
                answers.add_read(batch, *network(batch.images))
        answers.gather(self.peers)
        self._check(answers.total())  # weights may have burst in the last step, after its loss
        self._said = answers.probabilities
        return answers.figures("validation_")

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
            "curves": self.curves, "best": self.best, "best_score": self.best_score, "said": self._said,
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
        best = checkpoints.load(self.job.folder / BEST)
        if best is not None and best["epoch"] == self.best:
            self._kept = best["probabilities"]
        elif self.best == len(self.curves):  # cut off between the checkpoint and this, which the checkpoint then holds
            self._kept = saved["said"]
            self._keep()
        else:
            raise ModelError(
                f"{self.job.folder / BEST}: it does not hold the weights of epoch {self.best}, the best so far; delete "
                f"{self.job.folder} to start anew."
            )
        checkpoints.restore_random_state(saved["random"], self.device)
        log.info("going on after epoch %d of %d", len(self.curves), self.learn.epochs)


class Answers:
    """Collects what a network says about an epoch's rows, to be judged at its end."""

    def __init__(self, network: AgeNetwork, decoding: Decoding) -> None:
        self.network, self.decoding = network, decoding
        self._parts: list[tuple[Tensor, ...]] = []

    def add(self, batch: Batch, distribution: Tensor) -> None:
        """Add a batch by its probabilities `(n, outputs)`."""
        self.add_read(batch, *self.network.readout(distribution))

    def add_read(self, batch: Batch, probabilities: Tensor, years: Tensor) -> None:
        """Add a batch by the probabilities of its ranges `(n, classes)` and its years `(n,)`."""
        self._parts.append((batch.labels, probabilities.float(), batch.ages, years.float()))

    def gather(self, peers: Alone) -> None:
        """Take in what the other processes have collected, in their order."""
        self._parts = peers.gathered(self._parts)

    @property
    def probabilities(self) -> Tensor:
        """What was said of the ranges of all rows, float32 `(n, classes)`, on the CPU."""
        return torch.cat([probabilities for _, probabilities, _, _ in self._parts]).cpu()

    def total(self) -> Tensor:
        """Sum of all probabilities and years: not finite if one of them is not."""
        return torch.stack([probabilities.sum() + years.sum() for _, probabilities, _, years in self._parts]).sum()

    def judged(self) -> Judged:
        """What is known and was said about all rows, each age moved into the answered range as in every answer."""
        labels, probabilities, ages, years = (
            torch.cat(column).cpu().numpy() for column in zip(*self._parts, strict=True)
        )
        shown = self.network.readout.ranges.within(decide(probabilities, self.decoding), years)
        return checked(labels, probabilities, ages, shown, self.decoding)

    def figures(self, prefix: str) -> dict[str, float]:
        """All figures of `agepipe.evaluation.metrics`, with a prefix."""
        return {prefix + name: value for name, value in figures(*self.judged())}


def _statistics(saved: dict[str, Any] | None, train: Batches, job: Job) -> tuple[Channels, Channels]:
    if saved is not None:
        return saved["mean"], saved["std"]
    return normalisation(job.learn) or statistics(train.blocks())


def _device(job: Job) -> torch.device:
    """The device; also the number of threads, and on a CPU only algorithms that give the same result twice."""
    kind = job.device if job.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device: 'cuda', but torch finds no GPU; take 'cpu' or 'auto'.")
    torch.set_num_threads(job.threads)
    if kind == "cpu":
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a tenth of a step, for nothing
    return torch.device(kind) if kind == "cpu" or job.gpu is None else torch.device(kind, job.gpu)


def _precision(device: torch.device) -> AbstractContextManager[Any]:
    # bf16 is 7 to 16 times slower on CPUs without its instructions
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def network_of(job: Job, fitted: Fitted, path: Path) -> AgeNetwork:
    """The network that a training kept, on the CPU, ready to answer.

    Raises:
        ModelError: the file is damaged or missing.
    """
    network = build(job.learn, job.ranges, fitted.mean, fitted.std)
    state = checkpoints.load(path) or {}
    network.load_state_dict(state.get("network", {}))
    return network.eval()
