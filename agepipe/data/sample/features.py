"""What sits on the skin: wrinkles, nose, mouth, eyes, brows, beard and glasses."""

import numpy as np

from agepipe.data.sample.canvas import Array, Canvas, Mask, curve, ellipse, rgb, ribbon
from agepipe.data.sample.head import MIDDLE, Head, Points
from agepipe.data.sample.traits import Traits

EYES = ((58.6, 57.2), (136.8, 58.0))
NOSE = (95.4, 101.1)
MOUTH = ((62.7, 135.3), (129.7, 136.0))
"""UTKFace's median landmarks on the chip, px, image left first."""


def _mirrored(points: Points) -> list[Points]:
    return [[(MIDDLE + x, y) for x, y in points], [(MIDDLE - x, y) for x, y in points]]


def _shaken(lines: list[Points], rng: np.random.Generator, by: float = 0.9) -> Array:
    array = np.array(lines, np.float64)
    return array + rng.normal(0, by, array.shape)


def _folds(canvas: Canvas, t: Traits, lines: Array, width: float, depth: float, clip: Mask) -> None:
    """Creases: a dark line with a light lip below it."""
    if depth <= 0.02 or not len(lines):
        return
    mask = canvas.mask(ribbon(lines, width), 0.8)
    canvas.paint(mask, t.shade * np.float32(0.8), min(depth, 0.95), clip)
    below = np.roll(mask, max(1, round(width * 0.8)), axis=0)
    canvas.paint(below, t.light, 0.35 * min(depth, 1.0), clip)


def wrinkles(canvas: Canvas, t: Traits, h: Head, clip: Mask, rng: np.random.Generator) -> None:
    """Each kind comes at its own time: folds beside the mouth first, then forehead, eyes, cheeks and lips."""

    def depth(start: float, full: float) -> float:
        return float(np.clip((t.looks - start) / (full - start) * rng.normal(1, 0.12), 0, 1))

    fold = depth(18, 66)
    beside: Points = [(21, 101), (30, 112), (37 + 3 * t.wear, 127), (36 + 3 * t.wear, 132 + 14 * t.wear)]
    _folds(canvas, t, _shaken(_mirrored(beside), rng), 2 + 2.8 * fold, 0.12 + 0.75 * fold, clip)
    brow = depth(27, 62)
    rows = round(5 * brow + 0.3)
    forehead: list[Points] = [
        [(MIDDLE - 46, 25 - 7 * k), (MIDDLE - 18, 21 - 7 * k), (MIDDLE + 16, 22 - 7 * k), (MIDDLE + 46, 25 - 7 * k)]
        for k in range(rows)
    ]
    _folds(canvas, t, _shaken(forehead, rng, 1.6), 1.4 + 1.3 * brow, 0.3 + 0.6 * brow, clip)
    feet = depth(25, 64)
    count = round(5 * feet + 0.3)
    fan = [side for k in range(count) for side in _mirrored([(59, 56 + 3 * k), (66, 54 + 6.0 * k), (72, 50 + 8.5 * k)])]
    _folds(canvas, t, _shaken(fan, rng), 1.3 + 0.7 * feet, 0.25 + 0.6 * feet, clip)
    _late(canvas, t, h, clip, rng, depth(30, 78), depth(52, 88))


def _late(canvas: Canvas, t: Traits, h: Head, clip: Mask, rng: np.random.Generator, middle: float, late: float) -> None:
    frown: Points = [(5, 40), (6, 33), (5, 27)]
    _folds(canvas, t, _shaken(_mirrored(frown), rng, 0.6), 1.2 + middle, 0.8 * middle, clip)
    corner: Points = [(37, 140), (39, 149), (37, 160)]
    _folds(canvas, t, _shaken(_mirrored(corner), rng), 1.5 + 1.8 * middle, 0.85 * middle, clip)
    jowl: Points = [(h.jaw * 0.95, 134), (h.jaw * 0.82, 153), (h.jaw * 0.58, h.chin - 18)]
    _folds(canvas, t, _shaken(_mirrored(jowl), rng), 2 + 2.5 * late, 0.75 * late, clip)
    if late > 0.1:
        cheek: list[Points] = [[(s + 50, 96), (s + 53, 112), (s + 50, 130)] for s in range(-6, int(2 + 14 * late), 5)]
        both = [side for line in cheek for side in _mirrored(line)]
        _folds(canvas, t, _shaken(both, rng, 1.6), 1.2, 0.6 * late, clip)
        lips: list[Points] = [[(MIDDLE + x, 119), (MIDDLE + x * 1.05, 127)] for x in range(-20, 21, 7)]
        _folds(canvas, t, _shaken(lips, rng, 0.6), 1.2, 0.7 * late, clip)


def nose(canvas: Canvas, t: Traits, clip: Mask, rng: np.random.Generator) -> None:
    """Short, flat and snub in a child, with a bridge when grown, longer and broader in old age."""
    broad = {1: 3.5, 2: 1.0, 3: 1.0}.get(t.race, 0.0)
    wide = 15 + 4.5 * t.growth + broad * (0.5 + 0.5 * t.growth) + 3.0 * t.wear + float(rng.normal(0, 0.8))
    x, y = NOSE[0] + 1, NOSE[1] - 3 + 3 * t.growth + 5 * t.wear
    bridge = 0.08 + 0.3 * t.growth
    for side in (-1, 1):
        canvas.glow(x + side * 11, 66, 5, 13, t.shade, bridge, clip)
        canvas.glow(x + side * (wide - 3), y - 6, 5, 8, t.shade, 0.25 + 0.2 * t.growth, clip)
    wing: Points = [(wide - 4, -8), (wide, 0), (wide - 3, 6), (wide - 8, 7)]
    wings = [[(x + side * a, y + b) for a, b in wing] for side in (-1, 1)]
    canvas.stroke(wings, 2.4, t.shade * np.float32(0.85), 0.6, 0.7, clip)
    nostrils = [ellipse(x + side * wide * 0.46, y + 6.5, 3.4 + 0.7 * t.growth, 2.0) for side in (-1, 1)]
    canvas.fill(nostrils, t.shade * np.float32(0.45), 0.8, 0.8, clip)
    canvas.glow(x, 76, 3.5, 16, t.light, 0.2 + 0.3 * t.growth, clip)
    canvas.glow(x, y - 3, 6, 5, t.light, 0.6, clip)
    canvas.glow(x, y + 12, 14, 4, t.shade, 0.3, clip)


def mouth(canvas: Canvas, t: Traits, clip: Mask, rng: np.random.Generator) -> None:
    """Lips: small and full in a child, thin in old age; open in a laugh, with teeth when they have grown."""
    half = 32 - 4.5 * (1 - t.growth) + 3.0 * t.smile
    x = (MOUTH[0][0] + MOUTH[1][0]) / 2
    y = 135.5 + 1.0 * t.wear
    full = (1 - 0.5 * min(t.wear, 1.2)) * (1.15 if t.female or t.race == 1 else 0.95) * float(rng.normal(1, 0.08))
    corner = y - 4 * t.smile + 3 * t.wear * (1 - max(t.smile, 0))
    gap = 9 * min(max(t.open, 0), 1)
    dip = y + 1 + 2.5 * t.smile
    upper: Points = [(x - half, corner), (x - half * 0.5, y - 4 * full), (x - 5, y - 6.5 * full), (x, y - 5 * full),
                     (x + 5, y - 6.5 * full), (x + half * 0.5, y - 4 * full), (x + half, corner)]  # fmt: skip
    lower: Points = [
        (x + half * 0.55, dip + gap + 7 * full),
        (x, dip + gap + 10 * full),
        (x - half * 0.55, dip + gap + 7 * full),
    ]
    canvas.fill([*upper, *lower], t.lips, 0.92, 0.8, clip)
    _opening(canvas, t, x, half, corner, dip, gap, clip)
    canvas.glow(x, dip + gap + 5 * full, 9, 2.2, t.lips + (255 - t.lips) * np.float32(0.5), 0.5 * full, clip)
    canvas.glow(x, dip + gap + 15, 15, 3.5, t.shade, 0.4, clip)


def _opening(
    canvas: Canvas, t: Traits, x: float, half: float, corner: float, dip: float, gap: float, clip: Mask
) -> None:
    line: Points = [
        (x - half, corner),
        (x - half * 0.5, dip - 1),
        (x, dip),
        (x + half * 0.5, dip - 1),
        (x + half, corner),
    ]
    if gap > 1.5:
        inner: Points = [
            *line[1:4],
            (x + half * 0.45, dip + gap * 0.8),
            (x, dip + gap),
            (x - half * 0.45, dip + gap * 0.8),
        ]
        canvas.fill([line[0], *inner[:3], line[4], *inner[3:]], (74, 26, 28), 0.95, 0.5, clip)
        if t.looks > 1.3:
            white = rgb(238, 234, 226) * rgb(1, 1 - 0.04 * t.wear, 1 - 0.14 * t.wear)
            tooth = gap * 0.55
            teeth: Points = [
                *line[1:4],
                (x + half * 0.4, dip + tooth * 0.8),
                (x, dip + tooth),
                (x - half * 0.4, dip + tooth * 0.8),
            ]
            canvas.fill(teeth, white, 0.95, 0.5, clip)
    canvas.stroke([line], 2.0, t.lips * np.float32(0.4), 0.8, 0.5, clip)


def eyes(canvas: Canvas, t: Traits, clip: Mask, rng: np.random.Generator) -> None:
    """Large in a child, who has nearly grown eyes in a small face; hooded, baggy and pale in old age."""
    half = 22 - 5.5 * t.growth - 0.8 * t.wear + float(rng.normal(0, 0.5))
    height = (12 - 5.5 * t.growth - 1.7 * t.wear) * (0.78 if t.race == 2 else 1.0) * float(rng.normal(1, 0.07))
    look = rng.normal(0, (1.2, 0.6))
    _bags(canvas, t, half, clip)
    upper, lower = _lids(half, height, t.wear)
    _balls(canvas, t, np.concatenate([upper, lower], axis=1), height, look)
    _lashes(canvas, t, upper, lower)
    if t.wear > 0.3:  # the brow's skin hangs over the outer corner
        hood = _both([(0, -height - 4), (half * 0.7, -height - 1), (half + 5, 3 * t.wear), (half + 6, -8)])
        canvas.fill(hood, t.skin * np.float32(0.88), min(0.9 * (t.wear - 0.2), 0.75), 1.6)


def _both(points: Points) -> Array:
    """Points about an eye, x growing outwards, placed about both, `(2, n, 2)`."""
    array = np.array(points, np.float64)
    return np.stack([array * (side, 1) + eye for side, eye in zip((-1, 1), EYES, strict=True)])


def _lids(half: float, height: float, droop: float) -> tuple[Array, Array]:
    """The upper lids from the inner to the outer corner, and the lower lids back."""
    upper: Points = [(-half, 1.6), (-half * 0.5, -height * 0.72), (0, -height),
                     (half * 0.55, -height * (0.78 - 0.4 * droop)), (half, 2.4 * droop - 0.5)]  # fmt: skip
    lower: Points = [(half * 0.5, height * 0.62), (0, height * 0.78), (-half * 0.5, height * 0.6)]
    return _both(upper), _both(lower)


def _balls(canvas: Canvas, t: Traits, outlines: Array, height: float, look: Array) -> None:
    balls = canvas.mask(curve(outlines, closed=True), 0.4)
    canvas.paint(balls, rgb(236, 232, 226) - rgb(6, 14, 22) * np.float32(t.wear))
    shadow = _both([(-24, -height + 1), (0, -height - 3), (24, -height + 1), (0, -height + 4)])
    canvas.fill(shadow, t.shade, 0.5, 1.6, balls)
    r = 10.6 - 3.1 * t.growth

    def discs(radius: float, dx: float = 0.0, dy: float = 0.0) -> list[Points]:
        return [ellipse(x + look[0] + dx, y - 0.6 + look[1] + dy, radius, radius) for x, y in EYES]

    canvas.fill(discs(r), t.iris * np.float32(0.45), 1, 0.4, balls)
    canvas.fill(discs(r * 0.82), t.iris * np.float32(1 + 0.12 * t.wear), 1, 0.9, balls)
    canvas.fill(discs(r * (0.5 - 0.14 * min(t.wear, 1))), (10, 8, 9), 1, 0.5, balls)
    canvas.fill(discs(2.0 - 0.5 * t.wear, -r * 0.35, -r * 0.4), (252, 252, 252), 0.95, 0.4, balls)


def _lashes(canvas: Canvas, t: Traits, upper: Array, lower: Array) -> None:
    lash = 3.0 + 1.0 * t.makeup + 0.5 * t.female - 0.6 * t.wear
    canvas.stroke(upper, lash, rgb(36, 24, 22) + np.float32(t.wear * 30), 0.92, 0.4)
    rims = np.concatenate([upper[:, -1:], lower, upper[:, :1]], axis=1)
    canvas.stroke(rims, 1.3, t.shade * np.float32(0.7), 0.55, 0.5)
    if t.race != 2 or t.wear > 0.3:
        raised = -4.5 + 2.2 * min(t.wear, 1) + 2.5 * t.wear * (np.arange(5) / 4) ** 2
        crease = upper + np.stack([np.zeros(5), raised], axis=1)
        canvas.stroke(crease, 1.5 + 1.8 * t.wear, t.shade * np.float32(0.8), 0.35 + 0.4 * t.maturity, 0.6)


def _bags(canvas: Canvas, t: Traits, half: float, clip: Mask) -> None:
    """Shadow below the eyes: faint in the thirties, a pouch in old age."""
    tired = 0.16 * t.maturity + 0.55 * t.wear
    for side, (x, y) in zip((-1, 1), EYES, strict=True):
        canvas.glow(x - side * 2, y + 12, half * 0.7, 4, t.shade * rgb(0.95, 0.95, 1.1), tired, clip)
    if t.looks > 34:
        low = 13 + 5 * t.wear
        pouch = _both([(-half * 0.9, 7), (-half * 0.3, low), (half * 0.4, low - 1), (half, 8)])
        _folds(canvas, t, pouch, 1.4 + 1.6 * t.wear, min(1.3 * t.wear, 0.85), clip)


def brows(canvas: Canvas, t: Traits, rng: np.random.Generator) -> None:
    """Faint in a child, strong when grown, thin and grey later, bushy in some old men."""
    bushy = t.wear > 0.6 and not t.female and rng.random() < 0.5
    thick = (5.5 if t.female else 7.5) * min(0.45 + 0.5 * t.brow, 1.1) * (1.4 if bushy else 1.0)
    colour = t.hair * np.float32(0.75) if t.wear < 0.55 else t.hair * np.float32(0.9)
    arch = 4.5 if t.female else 2.0
    lift = 3.0 - 2.0 * t.growth + 3.5 * t.wear * (1 if t.female else 0.3)
    for side, (x, y) in zip((-1, 1), EYES, strict=True):
        top = y - 19 - 2 * (1 - t.growth) - lift + float(rng.normal(0, 0.8))
        line: Points = [
            (x - side * 21, top + 3),
            (x - side * 6, top - arch * 0.6),
            (x + side * 10, top - arch),
            (x + side * 24, top + 4),
        ]
        canvas.stroke([line], thick, colour, min(0.3 + 0.5 * t.brow, 0.9), 1.2)
        count = 16
        along = np.linspace(0.05, 0.9, count)
        root = curve(line)[(along * 18).astype(int)] + rng.normal((0, thick * 0.25), 1, (count, 2))
        lean = np.stack([side * (2 + 4 * along), -thick * (0.75 - 0.5 * along)], axis=1)
        canvas.paint(
            canvas.threads(np.stack([root, root + lean], axis=1), soft=0.4), colour * np.float32(0.7), min(t.brow, 0.9)
        )


def _beard_region(canvas: Canvas, h: Head) -> Mask:
    cheek, low = h.cheek + 3, h.chin + 10
    half: Points = [(cheek, 92), (h.jaw * 0.86, 118), (38, 121), (22, 116), (0, 114)]
    shape = (
        half
        + [(-x, y) for x, y in reversed(half[:-1])]
        + [(-h.jaw - 10, 150), (-30, low), (30, low), (h.jaw + 10, 150)]
    )
    return canvas.mask(curve([(MIDDLE + x, y) for x, y in shape], closed=True)[None], 5.0)


def beard(canvas: Canvas, t: Traits, h: Head, clip: Mask, rng: np.random.Generator) -> None:
    """The shadow of a shaven beard, or a beard; the mouth is painted over it."""
    if t.stubble + t.beard <= 0.03:
        return
    region = _beard_region(canvas, h)
    canvas.paint(region, t.hair * np.float32(0.6) + t.skin * np.float32(0.4), 0.28 * t.stubble, clip)
    if t.beard <= 0.1:
        return
    canvas.paint(region, t.hair * np.float32(0.8), 0.85 * t.beard, clip)
    for bright in (0.55, 1.3):
        roots = np.stack([rng.uniform(15, 180, 150), rng.uniform(112, 195, 150)], axis=1)
        lean = np.stack([(roots[:, 0] - MIDDLE) * 0.04 + rng.normal(0, 1, 150), rng.uniform(4, 9, 150)], axis=1)
        hairs = canvas.threads(np.stack([roots, roots + lean], axis=1), soft=0.4)
        canvas.paint(
            hairs, np.clip(t.hair * np.float32(bright), 0, 255), 0.7 * t.beard, np.asarray(np.minimum(region, clip))
        )


def glasses(canvas: Canvas, t: Traits, rng: np.random.Generator) -> None:
    """Frames, the bridge, and a little glare."""
    if t.glasses <= 0:
        return
    width, colour = t.glasses, rng.uniform(10, 110, 3).astype(np.float32)
    rx, ry = rng.uniform(27, 31), rng.uniform(17, 23)
    round_ = rng.random() < 0.4
    rims = []
    for x, y in EYES:
        turns = np.linspace(0, 2 * np.pi, 33)
        power = 1.0 if round_ else 0.6
        shape = np.stack(
            [
                np.sign(np.cos(turns)) * np.abs(np.cos(turns)) ** power * rx,
                np.sign(np.sin(turns)) * np.abs(np.sin(turns)) ** power * ry,
            ],
            1,
        )
        rims.append(np.add(shape, (x, y + 3)))
    bridge = curve([(EYES[0][0] + rx, 56), (MIDDLE, 52), (EYES[1][0] - rx, 56)])
    temples = [np.array([[EYES[0][0] - rx, 53.0], [4.0, 57.0]]), np.array([[EYES[1][0] + rx, 53.0], [192.0, 57.0]])]
    canvas.paint(canvas.mask(np.stack(rims), 1.0), (235, 240, 245), 0.06)
    for lines in (np.stack(rims), bridge[None], np.stack(temples)):
        canvas.paint(canvas.threads(lines, max(1, round(width)), 0.4), colour, 0.9)
