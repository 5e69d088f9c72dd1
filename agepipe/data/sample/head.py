"""The head: background, neck, ears, outline, the modelling of the skin by light and shade, and hair."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agepipe.data.sample.canvas import SIDE, Canvas, Floats, Mask, clouds, curve, ellipse, grains, rgb
from agepipe.data.sample.traits import Traits

MIDDLE = 97.5
"""The axis of the face, px: between UTKFace's median eyes."""

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Head:
    """The measures of a head in px; widths are from the axis to one side."""

    top: float
    temple: float
    cheek: float
    jaw: float
    chin_width: float
    chin: float
    hairline: float

    def outline(self) -> Points:
        """The face from the crown round the chin, closed."""
        right = [
            (self.temple * 0.72, self.top + 16), (self.temple, 24), (self.temple * 1.01, 62), (self.cheek, 100),
            (self.jaw, 142), (self.chin_width, self.chin - 9),
        ]  # fmt: skip
        left = [(-x, y) for x, y in reversed(right)]
        return [(MIDDLE + x, y) for x, y in [(0, self.top), *right, (0, self.chin), *left]]


def head(t: Traits, rng: np.random.Generator) -> Head:
    """A child's head is broad above and round below; a grown one longer, with a jaw; an old one sags."""
    grown, manly = t.growth, t.growth * t.maturity * (0.2 if t.female else 1.0)
    slim = t.maturity * (1 - t.wear)
    sag = max(t.wear - 0.2, 0)
    return Head(
        top=-22 - 8 * grown,
        temple=94 - 13 * grown + float(rng.normal(0, 1)),
        cheek=93 - 14 * grown + 2.5 * t.fat - 2.5 * slim - 3 * sag + float(rng.normal(0, 1)),
        jaw=80 - 20 * grown + 6 * manly + 3.5 * t.fat - 2 * slim + 9 * sag + float(rng.normal(0, 1)),
        chin_width=39 - 10 * grown + 5 * manly + 2 * t.fat + float(rng.normal(0, 1)),
        chin=173 + 15 * grown + 4 * manly - 2 * sag + float(rng.normal(0, 1.5)),
        hairline=5 + 4 * grown - 34 * t.bald + float(rng.normal(0, 2)),
    )


def muted(rng: np.random.Generator, dark: float, bright: float) -> Floats:
    """A quiet colour, RGB `(3,)`."""
    return np.clip(rng.uniform(dark, bright) + rng.normal(0, 20, 3), 5, 250).astype(np.float32)


def background(canvas: Canvas, rng: np.random.Generator) -> None:
    """Two blurred colours and some light spots, as behind a portrait lens."""
    slope = np.linspace(-1, 1, SIDE, dtype=np.float32)
    tilt = rng.normal(0, 0.7, 2).astype(np.float32)
    field = slope[None] * tilt[0] + slope[:, None] * tilt[1] + clouds(rng, (5, 0.5))
    canvas.image += field * (rng.normal(0, 24) + rng.normal(0, 9, 3)).astype(np.float32)[:, None, None]
    for _ in range(int(rng.integers(0, 3))):
        x, y, r = rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.uniform(8, 26)
        canvas.glow(x, y, r, r, muted(rng, 120, 245), 0.45)


def hair_behind(canvas: Canvas, t: Traits, h: Head) -> None:
    """The mass of hair that the face stands before."""
    bald = min(t.bald, 1.0)
    if bald < 0.93:
        wide, lift = h.temple + 4 + 5 * (1 - bald), 22 * (1 - bald)
        low = 72 + 8 * t.maturity
        shape = [(-wide * 0.97, low), (-wide, 20), (-wide * 0.7, h.top - lift + 12), (0, h.top - lift)]
        shape += [(-x, y) for x, y in reversed(shape[:3])]
        canvas.fill(
            [(MIDDLE + x, y) for x, y in shape], t.hair * np.float32(0.7), soft=2.0, opacity=min(1, 2 - 2 * bald)
        )
    if t.long > 0.05:
        end, wide = 40 + 190 * t.long, h.temple + 8 + 10 * t.long
        for side in (-1, 1):
            lock = [
                (side * wide, 0),
                (side * (wide + 6), 60),
                (side * wide, end),
                (side * 52, end + 4),
                (side * 60, 40),
            ]
            canvas.fill([(MIDDLE + x, y) for x, y in lock], t.hair * np.float32(0.62), soft=2.0)


def neck(canvas: Canvas, t: Traits, h: Head, rng: np.random.Generator) -> None:
    """Neck, collar and the shadow of the chin on them."""
    wide = h.jaw * (0.62 + 0.14 * t.maturity * (not t.female))
    canvas.fill(
        [(MIDDLE - wide, 140), (MIDDLE + wide, 140), (MIDDLE + wide + 4, 215), (MIDDLE - wide - 4, 215)], t.shade
    )
    cloth = muted(rng, 30, 220)
    slope = rng.uniform(3, 14)
    collar = [
        (-20, 236),
        (-10, 186 + slope),
        (MIDDLE - wide, 180),
        (MIDDLE, 205),
        (MIDDLE + wide, 180),
        (212, 186 + slope),
    ]
    canvas.fill([*collar, (220, 236)], cloth, soft=0.8)


def ears(canvas: Canvas, t: Traits, h: Head) -> None:
    """Ears, which go on growing all life."""
    tall, y = 17 + 3 * t.growth + 8 * t.wear, 76 + 4 * t.growth + 5 * t.wear
    out = h.temple + 2 + 3 * t.wear
    canvas.fill([ellipse(MIDDLE + s * out, y, 8 + 3 * t.wear, tall) for s in (-1, 1)], t.skin * np.float32(0.9), 1, 0.7)
    canvas.fill([ellipse(MIDDLE + s * (out + 1.5), y, 4, tall * 0.6) for s in (-1, 1)], t.shade, 0.5, 1.5)


def skin(canvas: Canvas, t: Traits, h: Head, rng: np.random.Generator) -> Mask:
    """The bare face, rounded by light and shade, smooth or blotchy; returns its mask."""
    face = canvas.mask(curve(h.outline(), closed=True)[None], 0.7)
    canvas.paint(face, t.skin)
    _modelling(canvas, t, h, face)
    texture = clouds(rng, (9, 1.5 + 5 * t.wear), (26, 0.8 + 4.5 * t.wear), (70, 0.8 + 4 * t.wear))
    tone = rgb(0.75, 1.0, 1.0) if t.wear > 0 else rgb(1, 1, 1)
    canvas.add(texture * tone[:, None, None], face)
    _spots(canvas, t, face, rng)
    return face


def _modelling(canvas: Canvas, t: Traits, h: Head, face: Mask) -> None:
    edge = canvas.mask(
        curve([(MIDDLE + (x - MIDDLE) * 0.8, 90 + (y - 90) * 0.84) for x, y in h.outline()], True)[None], 14
    )
    canvas.paint(255 - edge, t.shade, 0.55, face)
    canvas.glow(MIDDLE, 20, 38, 15, t.light, 0.55 - 0.2 * t.wear, face)
    rosy = t.skin * rgb(1.02, 0.8, 0.78)
    for side in (-1, 1):
        canvas.glow(MIDDLE + side * 39, 57, 17, 11, t.shade, 0.22 + 0.18 * t.maturity + 0.15 * t.wear, face)
        canvas.glow(MIDDLE + side * 52, 103, 17, 14, rosy, 0.75 - 0.5 * t.growth + 0.3 * t.makeup, face)
        canvas.glow(MIDDLE + side * 47, 92, 13, 9, t.light, 0.42 - 0.2 * t.wear, face)
        hollow = max(0.0, 0.12 * t.maturity + 0.4 * t.wear - 0.12 * t.fat)
        canvas.glow(MIDDLE + side * 58, 128, 10, 16, t.shade, hollow, face)
    canvas.glow(MIDDLE, h.chin - 20, 14, 8, t.light, 0.4 - 0.15 * t.wear, face)


def _spots(canvas: Canvas, t: Traits, face: Mask, rng: np.random.Generator) -> None:
    """Freckles in the young, pimples in the teens, age spots in the old."""
    counts = (
        int(rng.poisson(9 * t.wear * max(t.wear - 0.3, 0) * 4)),
        int(rng.poisson(9 * np.exp(-(((t.looks - 16) / 3) ** 2)))),
        int(25 * (t.race == 0 and t.looks < 40 and rng.random() < 0.12)),
    )
    kinds = ((3.2, t.skin * rgb(0.74, 0.6, 0.5), 0.6), (1.5, rgb(196, 92, 84), 0.6),
             (1.1, t.skin * rgb(0.8, 0.62, 0.5), 0.6))  # fmt: skip
    for count, (size, colour, opacity) in zip(counts, kinds, strict=True):
        if count:
            at = rng.normal((MIDDLE, 80), (38, 42), (count, 2))
            wide = size * rng.uniform(0.6, 1.5, count)
            dots = curve(np.array(ellipse(0, 0, 1, 0.8)) * wide[:, None, None] + at[:, None], closed=True)
            canvas.paint(canvas.mask(dots, 0.7), colour, opacity, face)


def _hair_edge(t: Traits, h: Head, rng: np.random.Generator) -> NDArray[np.float64]:
    """The lower edge of the hair over the forehead, `(9, 2)`, from one temple to the other."""
    across = np.linspace(-1, 1, 9)
    corners = 16 * t.bald * (not t.female) * np.exp(-(((np.abs(across) - 0.6) / 0.22) ** 2))
    part = rng.uniform(-0.45, 0.45)
    fall = t.fringe * (22 + 5 * np.cos((across - part) * 3)) * np.exp(-((across / 0.85) ** 4))
    swept = (9 + 34 * min(t.long, 0.7)) * np.abs(across - part * (1 - np.abs(across))) ** 1.7
    y = h.hairline - 2 + fall + swept + 12 * np.abs(across) ** 6 - corners + rng.normal(0, 1.6, 9)
    return np.stack([MIDDLE + across * (h.temple + 1), y], axis=1)


def hair_front(canvas: Canvas, t: Traits, h: Head, rng: np.random.Generator) -> None:
    """Hair on the skull, beside the face and over the forehead, with its strands."""
    edge = _hair_edge(t, h, rng)
    body = 1 - np.clip(t.bald - 0.25, 0, 0.75) / 0.75 * 0.85
    if t.bald < 0.9:
        crown = [(h.temple + MIDDLE + 8, -12.0), (MIDDLE, -46.0), (MIDDLE - h.temple - 8, -12.0)]
        outline = np.concatenate([curve(edge), np.array(crown)])
        canvas.paint(canvas.mask(outline[None], 1.6), t.hair * np.float32(0.85), float(body))
        _strands(canvas, t, edge, rng, float(body))
    _sides(canvas, t, h, rng)


def _strands(canvas: Canvas, t: Traits, edge: NDArray[np.float64], rng: np.random.Generator, body: float) -> None:
    for bright, count in ((0.6, 34), (1.18, 30), (1.4, 12)):
        start = rng.integers(0, 9, count)
        ends = edge[start] + rng.normal(0, (6, 2.4), (count, 2))
        roots = np.stack(
            [MIDDLE + (ends[:, 0] - MIDDLE) * 0.7 + rng.normal(0, 4, count), np.full(count, -14.0)], axis=1
        )
        middle = (ends + roots) / 2 + rng.normal(0, 2.5, (count, 2))
        lines = curve(np.stack([roots, middle, ends], axis=1))
        canvas.paint(canvas.threads(lines, soft=0.5), np.clip(t.hair * np.float32(bright), 0, 255), 0.75 * body)


def _sides(canvas: Canvas, t: Traits, h: Head, rng: np.random.Generator) -> None:
    thick = 8 - 4 * t.bald if t.growth > 0.25 else 2.0
    end = 62 + 10 * t.maturity * (not t.female) + 150 * t.long
    inner = [(h.temple - thick, 4.0), (h.temple - thick + 2, 34.0), (h.temple - 1, 0.55 * end + 8)]
    tip = [(h.cheek - 1, 0.9 * end)]
    outer = [(h.cheek + 6 + 14 * t.long, end), (h.temple + 7 + 11 * t.long, 40.0), (h.temple + 5, -8.0)]
    flow = np.array([0, 0, 0, 1, 1, 0, 0]) * rng.normal(0, 2.5, (2, 1))
    shape = np.array([*inner, *tip, *outer]) + np.stack([flow, np.zeros_like(flow)], axis=-1)
    both = shape * np.array([[[-1, 1]], [[1, 1]]]) + (MIDDLE, 0)
    canvas.fill(both, t.hair * np.float32(0.8), 0.9 - 0.3 * t.bald, 1.4)
    if t.bald < 0.9:
        _locks(canvas, t, curve(both[:, :4]), rng)


def _locks(canvas: Canvas, t: Traits, lines: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Strands that follow the inner edges `(2, n, 2)` of the side hair, spread outwards."""
    count = int(6 + 9 * t.long)
    for bright in (0.58, 1.2, 1.4):
        away = rng.normal(0, 0.8, (2, count, 2))
        away[..., 0] += rng.uniform(0.5, 9 + 14 * t.long, (2, count)) * [[-1], [1]]
        strands = lines[:, None] + away[:, :, None]
        mask = canvas.threads(strands.reshape(-1, *strands.shape[-2:]), soft=0.5)
        canvas.paint(mask, np.clip(t.hair * np.float32(bright), 0, 255), 0.5)


def lit(image: Floats, t: Traits, rng: np.random.Generator) -> Floats:
    """Light from one side, its colour, the camera's contrast, and noise: planar `(3, side, side)` to the same."""
    slope = np.linspace(-1, 1, SIDE, dtype=np.float32)
    tilt = rng.normal(0, 0.16, 2).astype(np.float32)
    field = np.float32(rng.normal(1, 0.07)) + slope[None] * tilt[0] + slope[:, None] * tilt[1]
    warm = np.float32(1) + rng.normal(0, 0.035, 3).astype(np.float32)
    contrast = np.float32(rng.normal(1.04 - 0.08 * t.wear, 0.07))
    out = image * (field * (warm * contrast)[:, None, None])
    if rng.random() < 0.03 + 0.05 * t.wear:
        out[:] = np.tensordot(rgb(0.299, 0.587, 0.114), out, 1)
    grain = grains(rng, float(rng.uniform(1, 5)))
    out += grain + np.float32(128) * (1 - contrast)
    return np.asarray(out, np.float32)
