"""Draw on a frame: a box with range, probability and age for each face, and a status line."""

from collections.abc import Sequence

import cv2
import numpy as np

from agepipe.model.ages import AgeRanges
from agepipe.model.decoding import DEFAULT_LEVEL
from agepipe.model.imaging import Image
from agepipe.serving.tracker import Track

FONT = cv2.FONT_HERSHEY_SIMPLEX  # has only ASCII characters
PALETTE = (
    (86, 180, 233), (230, 159, 0), (0, 200, 140), (240, 228, 66), (204, 121, 167), (255, 110, 60), (150, 150, 255),
)  # fmt: skip
"""RGB colours that colour-blind people can distinguish (after M. Okabe and K. Ito). A track keeps its colour."""
DARK, LIGHT = (20, 20, 20), (245, 245, 245)
HELP = ("q  quit", "s  keep a snapshot", "p  pause and go on", "h  show or hide this help")
KEYS = "q quit, s snapshot, p pause, h help"


def label_lines(track: Track, ranges: AgeRanges) -> list[str]:
    """The label of a face: range and age, and the 90 % prediction set if it has more than one range."""
    lines = [f"{ranges.words[track.label]}   {track.probability:.0%}", f"about {track.age(ranges):.0f} years"]
    if track.ends is not None and track.ends[0] < track.ends[1]:
        lines.append(f"{DEFAULT_LEVEL}% sure: {ranges.span_words(*track.ends)}")
    return lines


def draw(image: Image, tracks: Sequence[Track], ranges: AgeRanges, line: str, *, show_help: bool = False) -> Image:
    """Draw on a frame in place, and return it.

    Args:
        image: uint8 RGB `(height, width, 3)`, contiguous.
        tracks: the tracks of its faces.
        ranges: the age ranges of the model.
        line: the status line, drawn at the bottom.
        show_help: whether to draw the help for the keys.
    """
    scale = max(0.4, min(image.shape[:2]) / 900)
    floor = image.shape[0] - _height([line], scale * 0.8)
    for track in tracks:
        _face(image, track, ranges, scale, floor)
    _label(image, [line], (0, image.shape[0]), scale * 0.8, DARK, LIGHT)
    if show_help:
        _label(image, HELP, (0, image.shape[0] // 2), scale, DARK, LIGHT)
    return image


def _face(image: Image, track: Track, ranges: AgeRanges, scale: float, floor: int) -> None:
    colour = PALETTE[track.number % len(PALETTE)]
    left, top, width, height = (int(value) for value in np.nan_to_num(track.face.box))
    cv2.rectangle(image, (left, top), (left + width, top + height), colour, max(1, round(scale * 3)), cv2.LINE_AA)
    lines = label_lines(track, ranges)
    bottom = _bottom(top, top + height, _height(lines, scale), floor)
    _label(image, lines, (left, bottom), scale, colour, DARK)


def _bottom(top: int, end: int, tall: int, floor: int) -> int:
    """Lower edge of a label, px: above the box if there is room, else below it and above `floor`, else inside it."""
    if top >= tall:
        return top
    return end + tall if end + tall <= floor else top + tall


def _height(lines: Sequence[str], scale: float) -> int:
    return round(len(lines) * 30 * scale + 10 * scale)


def _label(
    image: Image, lines: Sequence[str], corner: tuple[int, int], scale: float, fill: Sequence[int], ink: Sequence[int]
) -> None:
    """Draw lines of text on a filled box with the given lower left corner, moved into the image."""
    thickness = max(1, round(scale * 1.6))
    wide = max(cv2.getTextSize(text, FONT, scale * 0.9, thickness)[0][0] for text in lines) + round(12 * scale)
    tall = _height(lines, scale)
    left = max(0, min(corner[0], image.shape[1] - wide))
    top = max(0, min(corner[1], image.shape[0]) - tall)
    cv2.rectangle(image, (left, top), (left + wide, top + tall), fill, cv2.FILLED)
    for row, text in enumerate(lines, start=1):
        place = (left + round(6 * scale), top + round(row * 30 * scale))
        cv2.putText(image, text, place, FONT, scale * 0.9, ink, thickness, cv2.LINE_AA)
