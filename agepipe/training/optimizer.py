"""The optimizer, the schedule of its learning rate, and the moving average of the weights."""

import copy
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR

from agepipe.config.stages import LearnSettings
from agepipe.training.network import AgeNetwork

WARM_UP = 0.3
"""Share of one-cycle's steps in which the learning rate rises, from 1/25 of its largest value."""


def optimizer(learn: LearnSettings, network: nn.Module) -> Optimizer:
    """Create SGD or AdamW over all parameters; AdamW does not decay norms and biases.

    The fused implementation updates all parameters in one call. On a CPU the default one took 5 % of a step of
    mobilenet_v3_small at 64 px.
    """
    groups = _groups(learn, network)
    if learn.optimizer == "sgd":
        return SGD(
            groups, lr=learn.lr, momentum=learn.momentum, nesterov=learn.nesterov and learn.momentum > 0, fused=True,
        )  # fmt: skip
    return AdamW(groups, lr=learn.lr, betas=(learn.momentum, 0.999), fused=True)


def _groups(learn: LearnSettings, network: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups of equal learning rate and weight decay."""
    rates = _rates(learn, network)
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decays = learn.optimizer == "sgd" or parameter.ndim > 1
            found.setdefault((rates[_block(name)], learn.weight_decay if decays else 0.0), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in found.items()]


def _rates(learn: LearnSettings, network: nn.Module) -> dict[str, float]:
    """The largest learning rate of each block."""
    blocks = list(dict.fromkeys(_block(name) for name, _ in network.named_parameters()))
    return {block: learn.lr * learn.layer_decay ** (len(blocks) - 1 - index) for index, block in enumerate(blocks)}


def _block(name: str) -> str:
    """The block that a parameter belongs to: its name up to the first number, or without its last component."""
    words = name.split(".")
    ends = next((index + 1 for index, word in enumerate(words) if word.isdigit()), len(words) - 1)
    return ".".join(words[:ends])


def schedule(learn: LearnSettings, optimizer: Optimizer, steps: int) -> LRScheduler:
    """Create the schedule of the learning rate over `steps` steps; call `.step()` after each."""
    if learn.schedule == "one-cycle":
        most = [float(group["lr"]) for group in optimizer.param_groups]
        return OneCycleLR(optimizer, most, total_steps=max(steps, 2), pct_start=WARM_UP, cycle_momentum=False)
    if learn.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    return ConstantLR(optimizer, factor=1.0)


class Average:
    """Exponential moving average of weights and buffers; the decay after `t` steps is at most (1 + t) / (10 + t)."""

    def __init__(self, network: AgeNetwork, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, network: AgeNetwork) -> None:
        """Update the average by the network's present weights."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        pairs = list(zip(_state(self.network), _state(network), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        # one call for all tensors; a call for each takes milliseconds a step on a GPU
        torch._foreach_lerp_([mean for mean, _ in floats], [now for _, now in floats], share)
        for mean, now in pairs:
            if not mean.is_floating_point():
                mean.copy_(now)


def _state(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]
