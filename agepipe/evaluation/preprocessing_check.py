"""Whether pictures reach a network as they did in training: a mis-normalised model answers, only wrongly.

Two looks. The exported network holds its scale and shift under the names that `agepipe.training.network.Normalise`
gives them, so they can be held against mean and deviation on the card: what differs is certainly wrong, and refused.
Where both were wrong together, the accuracy tells: on rows of the training's own source it is that of the validation
rows up to chance. Far below, it is said, and no more than said, because on other photographs a fall may be an honest
one.
"""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.config.stages import LOWER_IS_BETTER
from agepipe.core.errors import ModelError
from agepipe.model.bundle import NETWORK, Card

SCALE, SHIFT = "normalise.scale", "normalise.shift"
"""Names in the exported network of what levels are multiplied by, and of what is added then."""
TOLERANCE = 1e-3
"""Largest difference between the network's mean or deviation and the card's; float32 alone makes less than 1e-6."""
FALL = 0.10
"""Accuracy below that of the validation rows that is looked into at all; choosing an epoch by them flatters less."""
CHANCE = 0.001
"""Probability of a fall by chance below which it is said."""


def check_normalisation(folder: Path, card: Card) -> None:
    """Refuse a network that normalises by other statistics than its card says; one that hides them passes.

    Raises:
        ModelError: says by which, and which the card has.
    """
    found = _statistics(folder / NETWORK)
    if found is None:
        return
    for name, inside, said in zip(("mean", "deviation"), found, (card.mean, card.std), strict=True):
        if not np.allclose(inside, said, atol=TOLERANCE, rtol=0):
            raise ModelError(
                f"{folder / NETWORK}: normalises by the {name} {_triple(inside)}, but the card says {_triple(said)}, "
                "by which it was trained, so its answers are wrong; export it again."
            )


def _statistics(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Mean and deviation of pixels in [0, 1], each `(3,)`, by which an exported network normalises; None if hidden."""
    import onnx  # needed here alone, and takes long to import

    try:
        graph = onnx.load(path).graph
    except Exception as error:  # protobuf's errors share no base
        raise ModelError(f"{path}: not a network that can be read ({error}); export it again.") from error
    kept = {one.name: one for one in graph.initializer if one.name in (SCALE, SHIFT)}
    if len(kept) != 2:
        return None
    scale, shift = (onnx.numpy_helper.to_array(kept[name]).astype(np.float64) for name in (SCALE, SHIFT))
    deviation = 1 / (255 * scale)
    return -shift * deviation, deviation


def _triple(values: NDArray[np.float64] | tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def doubt(card: Card, curves: pl.DataFrame, lineage: pl.DataFrame, right: NDArray[np.bool_]) -> str:
    """A sentence where a model is right far less often than on its validation rows; empty where it is not.

    Args:
        card: its `config` says by which figure the epoch was kept.
        curves: one row an epoch; without validation figures nothing can be said.
        lineage: the rows with the role `chosen` are those for validation.
        right: whether the answer was right, of each row judged, `(n,)`.
    """
    before, count = _validated(card, curves), int((lineage["role"] == "chosen").sum())
    now = float(right.mean())
    if before is None or count == 0 or before - now < FALL:
        return ""
    from scipy.stats import fisher_exact  # takes long to import

    was_right = round(before * count)
    table = [[int(right.sum()), int((~right).sum())], [was_right, count - was_right]]
    if fisher_exact(table, alternative="less").pvalue >= CHANCE:
        return ""
    return (
        f"It names the right range for {now:.0%} of these rows, but did so for {before:.0%} of its {count} validation "
        "rows, which is too far apart for chance. On photographs of the same source this means that pictures do not "
        "reach the network as they did in training: look first at the normalisation (mean and deviation), then at the "
        "order of the colours and the crop."
    )


def _validated(card: Card, curves: pl.DataFrame) -> float | None:
    """The validation accuracy of the epoch that was kept; None for a network that was not validated."""
    metric = card.config.get("final", {}).get("metric", "")
    kept, accuracy = f"validation_{metric}", "validation_accuracy"
    if not {kept, accuracy} <= set(curves.columns):
        return None
    best = curves.sort(kept, descending=metric not in LOWER_IS_BETTER, maintain_order=True)
    return float(best[accuracy][0])
