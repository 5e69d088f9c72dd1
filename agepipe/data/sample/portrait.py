"""One face, painted from the background to the glasses."""

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.data.sample import features, head
from agepipe.data.sample.canvas import Canvas
from agepipe.data.sample.traits import traits


def pose(rng: np.random.Generator) -> NDArray[np.float64]:
    """A small turn, shift and scale about the middle of the face, affine `(2, 3)`: an aligned chip is not exact."""
    turn, scale = np.deg2rad(rng.normal(0, 2.0)), rng.normal(1, 0.035)
    turned = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    turned[:, 0] *= rng.normal(1, 0.015)
    centre = np.array([head.MIDDLE, 96.0])
    return np.column_stack([turned, centre - turned @ centre + rng.normal(0, 4.2, 2)])


def portrait(age: int, female: bool, race: int | None, seed: tuple[int, ...]) -> NDArray[np.uint8]:
    """The face of a person of this age, uint8 `(200, 200, 3)`, RGB; the same seed draws the same face."""
    rng = np.random.default_rng(seed)
    t = traits(age, female, race, rng)
    canvas = Canvas(head.muted(rng, 50, 225), pose(rng))
    measures = head.head(t, rng)
    head.background(canvas, rng)
    head.hair_behind(canvas, t, measures)
    head.neck(canvas, t, measures, rng)
    head.ears(canvas, t, measures)
    face = head.skin(canvas, t, measures, rng)
    features.beard(canvas, t, measures, face, rng)
    features.nose(canvas, t, face, rng)
    features.wrinkles(canvas, t, measures, face, rng)
    features.mouth(canvas, t, face, rng)
    features.eyes(canvas, t, face, rng)
    features.brows(canvas, t, rng)
    head.hair_front(canvas, t, measures, rng)
    features.glasses(canvas, t, rng)
    planes = np.clip(head.lit(canvas.image, t, rng), 0, 255).astype(np.uint8)
    picture = np.ascontiguousarray(planes.transpose(1, 2, 0))
    soft = float(rng.normal(0.35, 0.3))  # focus
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), soft) if soft > 0.2 else picture, np.uint8)
