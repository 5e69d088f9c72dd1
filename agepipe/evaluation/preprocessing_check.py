"""Detect a network with a wrong normalisation, which predicts without an error, but wrongly.

There are two checks. The exported network has its scale and shift under the names of
`agepipe.training.network.Normalise`. They must match mean and deviation of the card, otherwise the model is refused. If
both are wrong, the accuracy shows it: on rows of the training's source it should differ from that of the validation
rows only by chance. If it is far below, a note says so. This is not an error, because on other photographs the accuracy
may really be lower.
"""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agepipe.config.stages import LOWER_IS_BETTER
from agepipe.core.errors import ModelError
from agepipe.model.bundle import NETWORK, Card

SCALE, SHIFT = "normalise.scale", "normalise.shift"
"""Names in the exported network of the factor of the levels, and of the term that is added then."""
TOLERANCE = 1e-3
"""Largest difference between the network's mean or deviation and the card's; float32 alone makes less than 1e-6."""
FALL = 0.10
"""Smallest fall in accuracy, from that of the validation rows, that is tested; choosing the epoch biases less."""
CHANCE = 0.001
"""P-value of a fall below which it is reported."""


def check_normalisation(folder: Path, card: Card) -> None:
    """Refuse a network whose mean or deviation differs from its card's; a network without these names passes.

    Raises:
        ModelError: names both values.
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
    """Mean and deviation of pixels in [0, 1], each `(3,)`, of a network's normalisation; None if not named."""
    import onnx  # needed only here, and slow to import

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
    """A sentence if the accuracy is far below that of the validation rows, else empty.

    Args:
        card: its `config` names the metric by which the epoch was chosen, or that it is the last.
        curves: one row per epoch; without validation figures the result is empty.
        lineage: the rows with the role `chosen` or `calibrated` are the validation rows.
        right: whether the prediction of each evaluated row is right, `(n,)`.
    """
    before, count = _validated(card, curves), int(lineage["role"].is_in(["chosen", "calibrated"]).sum())
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
    """The validation accuracy of the kept epoch; None for a network without validation."""
    final, accuracy = card.config.get("final", {}), "validation_accuracy"
    if final.get("keep") == "last":
        return float(curves[accuracy][-1]) if accuracy in curves.columns else None
    metric = final.get("metric", "")
    kept = f"validation_{metric}"
    if not {kept, accuracy} <= set(curves.columns):
        return None
    best = curves.sort(kept, descending=metric not in LOWER_IS_BETTER, maintain_order=True)
    return float(best[accuracy][0])
