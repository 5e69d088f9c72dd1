"""The optimizer, how its learning rate moves, and the running average of the weights."""

import copy

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR

from agepipe.config.stages import LearnSettings
from agepipe.training.network import AgeNetwork

WARM_UP = 0.3
"""Share of the steps of one-cycle that raise the learning rate, from 1/25 of its largest value."""


def optimizer(learn: LearnSettings, network: nn.Module) -> Optimizer:
    """SGD or AdamW over all parameters; AdamW's decay leaves out norms and biases, which it would only weaken.

    All parameters are moved by one fused call: by the default, on a CPU, each takes several, and AdamW alone took 5 %
    of a step of mobilenet_v3_small at 64 px.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if learn.optimizer == "sgd":
        return SGD(
            parameters, lr=learn.lr, momentum=learn.momentum, weight_decay=learn.weight_decay,
            nesterov=learn.nesterov and learn.momentum > 0, fused=True,
        )  # fmt: skip
    groups = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": learn.weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=learn.lr, betas=(learn.momentum, 0.999), fused=True)


def schedule(learn: LearnSettings, moved: Optimizer, steps: int) -> LRScheduler:
    """How the learning rate moves over all `steps`; call `.step()` after each."""
    if learn.schedule == "one-cycle":
        return OneCycleLR(moved, learn.lr, total_steps=max(steps, 2), pct_start=WARM_UP, cycle_momentum=False)
    if learn.schedule == "cosine":
        return CosineAnnealingLR(moved, T_max=steps)
    return ConstantLR(moved, factor=1.0)


class Average:
    """Exponential average of weights and statistics, warmed up: the decay after `t` steps is at most (1+t)/(10+t)."""

    def __init__(self, network: AgeNetwork, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, network: AgeNetwork) -> None:
        """Move the average towards the network's present weights."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for mean, now in zip(_state(self.network), _state(network), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, share)
            else:
                mean.copy_(now)


def _state(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]
