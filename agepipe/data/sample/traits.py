"""Who a drawn face is: everything that age, gender, race and chance decide about it, as plain numbers.

Age acts through three courses: `growth` (0 at birth, 1 when grown), `maturity` (the slow change from the late teens
to the forties) and `wear` (from the twenties on). Each person looks older or younger than the label says, and each
feature has a course of its own, so that neighbouring ranges overlap as they do in photographs.
"""

from dataclasses import dataclass

import numpy as np

from agepipe.data.sample.canvas import Floats, rgb

SKINS = ((236, 190, 164), (122, 82, 60), (236, 194, 156), (184, 132, 98), (212, 164, 130))
"""RGB of typical skin by UTKFace's race codes: White, Black, Asian, Indian, Other."""
DARK_HAIR = ((36, 28, 26), (52, 38, 30), (24, 21, 22))
FAIR_HAIR = ((94, 64, 42), (58, 42, 32), (196, 160, 102), (150, 112, 70), (150, 74, 40))
DARK_EYES = ((66, 42, 28), (48, 32, 24))
FAIR_EYES = ((92, 126, 156), (98, 116, 84), (92, 64, 40), (120, 134, 140))
GREY = (205, 204, 202)


@dataclass(frozen=True)
class Traits:
    """A person, as numbers; shares run from 0 to 1 unless said otherwise."""

    looks: float
    """The age that the face shows, years: the label's, with the person's own lead or lag."""
    growth: float
    maturity: float
    wear: float
    female: bool
    race: int
    skin: Floats
    """RGB of the skin, `(3,)`."""
    hair: Floats
    """RGB of the hair, `(3,)`, greyness included."""
    iris: Floats
    lips: Floats
    bald: float
    """How far the hairline has gone back."""
    fringe: float
    """How low the hair falls over the forehead."""
    long: float
    """How much hair hangs beside the face."""
    brow: float
    """Strength of the eyebrows."""
    beard: float
    """Density of the beard; 0 when shaven."""
    stubble: float
    smile: float
    """From -0.3 (corners down) to 1."""
    open: float
    """How far the mouth is open."""
    fat: float
    """Fullness of the face, about a normal deviate."""
    glasses: float
    """Thickness of the frames in px; 0 without."""
    makeup: float

    @property
    def shade(self) -> Floats:
        """The colour of shadow on this skin."""
        return np.asarray(self.skin * rgb(0.62, 0.53, 0.49), np.float32)

    @property
    def light(self) -> Floats:
        """The colour of light on this skin."""
        return np.asarray(self.skin + (255 - self.skin) * np.float32(0.38), np.float32)


def traits(age: int, female: bool, race: int | None, rng: np.random.Generator) -> Traits:
    """Draw a person of this age; without a race code the skin is anyone's."""
    code = int(rng.integers(5)) if race is None else race
    looks = _looks(age, rng)
    growth, maturity, wear = _courses(looks, rng)
    skin = rgb(*SKINS[code]) * np.float32(rng.normal(1, 0.06)) + rng.normal(0, 4, 3).astype(np.float32)
    skin = skin * rgb(1 - 0.04 * wear, 1 - 0.06 * wear, 1 - 0.05 * wear)
    makeup = float(female and 15 < looks < 75 and rng.random() < 0.5) * float(rng.uniform(0.3, 1))
    return Traits(
        looks=looks, growth=growth, maturity=maturity, wear=wear, female=female, race=code,
        skin=np.clip(skin, 40, 250).astype(np.float32), hair=_hair_colour(looks, female, code, rng),
        iris=_pick(FAIR_EYES if code == 0 else DARK_EYES, rng), lips=_lip_colour(skin, makeup, wear, rng),
        bald=_baldness(looks, female, rng), fringe=_fringe(growth, female, rng), long=_length(looks, female, rng),
        brow=float(np.clip((0.25 + 0.75 * growth - 0.35 * wear) * rng.normal(0.8 if female else 1.1, 0.15), 0.1, 1.5)),
        beard=_beard(looks, female, rng), stubble=_stubble(looks, female, rng),
        smile=float(np.clip(rng.normal(0.35, 0.35), -0.3, 1)), open=max(0.0, float(rng.normal(0.1, 0.45))),
        fat=float(rng.normal(0.5 * maturity - 0.2, 0.7)), glasses=_glasses(looks, rng), makeup=makeup,
    )  # fmt: skip


def _looks(age: int, rng: np.random.Generator) -> float:
    """Apparent age: off by about half a year in infants, three years at 25 and five from 60 on."""
    spread = 0.35 + 0.115 * min(age, 40) + 0.03 * max(min(age, 80) - 40, 0)
    return max(0.6, age + float(rng.normal(0, SPREAD * spread)))


SPREAD = 0.55
"""How far people look away from their age, as a factor; it sets how well a perfect reader could do."""


def _courses(looks: float, rng: np.random.Generator) -> tuple[float, float, float]:
    growth = 1 - float(np.exp(-((looks / 8.5) ** 1.1))) + float(rng.normal(0, 0.02))
    maturity = 1 / (1 + float(np.exp(-(looks - 27) / 6))) + float(rng.normal(0, 0.04))
    wear = (max(looks - 22, 0) / 66) ** 1.05 * float(rng.normal(1, 0.08))
    return float(np.clip(growth, 0, 1)), float(np.clip(maturity, 0, 1)), float(np.clip(wear, 0, 1.35))


def _pick(colours: tuple[tuple[int, int, int], ...], rng: np.random.Generator) -> Floats:
    chosen = colours[int(rng.integers(len(colours)))]
    return np.clip(rgb(*chosen) + rng.normal(0, 6, 3).astype(np.float32), 8, 250).astype(np.float32)


def _hair_colour(looks: float, female: bool, race: int, rng: np.random.Generator) -> Floats:
    own = _pick(FAIR_HAIR if race == 0 else DARK_HAIR, rng)
    own = own + (rgb(190, 160, 120) - own) * np.float32(0.35 * np.exp(-looks / 5) * (race == 0))
    dyed = rng.random() < (0.2 if female else 0.04)
    grey = 1 / (1 + np.exp(-(looks - rng.normal(55, 5)) / 4.5)) * (0.15 if dyed else 1.0)
    white = rgb(*GREY) + np.float32(max(looks - 65, 0) * 0.8)
    return np.clip(own + (white - own) * np.float32(grey), 8, 250).astype(np.float32)


def _lip_colour(skin: Floats, makeup: float, wear: float, rng: np.random.Generator) -> Floats:
    natural = skin * rgb(0.86, 0.58, 0.6)
    painted = rgb(rng.uniform(140, 200), 50, rng.uniform(60, 90))
    mixed = natural + (painted - natural) * np.float32(0.7 * makeup)
    return np.asarray(mixed + (skin * np.float32(0.82) - mixed) * np.float32(min(0.55 * wear, 0.6)), np.float32)


def _baldness(looks: float, female: bool, rng: np.random.Generator) -> float:
    infant = float(np.exp(-looks / 1.6)) * 0.9
    fate = float(rng.beta(1.2, 4)) if female else float(rng.beta(1.6, 1.4))
    course = 1 / (1 + float(np.exp(-(looks - 48) / 10)))
    return float(np.clip(infant + (0.5 if female else 1.15) * fate * course + 0.05 * rng.random(), 0, 1))


def _fringe(growth: float, female: bool, rng: np.random.Generator) -> float:
    worn = rng.random() < 0.25 + 0.3 * (1 - growth) * (growth > 0.25) + 0.1 * female
    return float(rng.uniform(0.4, 1)) if worn else float(rng.uniform(0, 0.3))


def _length(looks: float, female: bool, rng: np.random.Generator) -> float:
    if not female:
        return float(rng.uniform(0.2, 0.6)) if 14 < looks < 45 and rng.random() < 0.08 else 0.0
    grown = float(np.clip((looks - 1.5) / 5, 0, 1)) * float(np.clip(1.4 - looks / 90, 0.3, 1))
    return float(rng.uniform(0.35, 1)) * grown


def _beard(looks: float, female: bool, rng: np.random.Generator) -> float:
    worn = rng.random() < 0.34 and not female
    return float(worn) * float(np.clip((looks - 20) / 12, 0, 1)) * float(rng.uniform(0.4, 1))


def _stubble(looks: float, female: bool, rng: np.random.Generator) -> float:
    return 0.0 if female else float(np.clip((looks - 15) / 14, 0, 1)) * float(rng.uniform(0.25, 0.9))


def _glasses(looks: float, rng: np.random.Generator) -> float:
    share = 0.02 + 0.1 * (looks > 8) + 0.3 * float(np.clip((looks - 38) / 30, 0, 1))
    return float(rng.uniform(1, 2.6)) if rng.random() < share else 0.0
