"""Every face of a photograph: searched at several sizes and in four turns, each face kept where it was seen best.

YuNet finds upright faces of some 40 to 500 px. A photograph therefore is searched at its own size and at each third of
it, so that a large face does not hide the small ones. Album scans do not say which side is up, so a coarse copy is
searched in all four turns. A face that is found upside down has landmarks that no face has; so each face is looked at
again, close up and in all four turns, and the turn with the best score is its own.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.model.imaging import Image
from agepipe.serving.detect.face import Face, overlapping

log = logging.getLogger(__name__)

Find = Callable[[Image], list[Face]]
"""Finds the faces of a picture, in pixels of that picture, uncertain ones too."""

STEP = 3
"""By what the longest side shrinks from one search to the next."""
COARSEST = 480
"""Longest side, px, at which a face that fills the photograph is found; no smaller one is searched."""
TURNED = 1024
"""Longest side, px, up to which all four turns are searched; above it, only the turns in which there was a face."""
ENLARGED = 1280
"""A photograph with a shorter longest side, px, is searched at twice its size too, for its small faces."""
TILE, SHARED = 1600, 192
"""Side, px, of a part that is searched at a time, which bounds memory; and what two neighbours share, so that no face
that only this size can find is cut in two."""
CLOSE = 240
"""Longest side, px, of a face with its surroundings that is looked at again: YuNet sees faces of this size best."""
MOST = 500
"""Places of a photograph that are looked at again: each takes some 20 ms, and other pages wait meanwhile."""
ONE = np.ones(2)


def searched(find: Find, image: Image, sure: float) -> list[Face]:
    """The faces of a photograph of any size and turn, largest first; landmarks are in the order of the upright face.

    Args:
        find: finds the upright faces of a picture.
        image: uint8 RGB `(height, width, 3)`.
        sure: score from which on a face that was looked at again is one.
    """
    coarse, fine = _sides(max(image.shape[:2]))
    found = [(face, turn) for turn in range(4) for face in _at_turn(find, image, turn, coarse)]
    turns = {0} | {turn for face, turn in _distinct(found) if face.score >= sure}
    found += [(face, turn) for turn in sorted(turns) for face in _at_turn(find, image, turn, fine)]
    again = [(_close_up(find, image, face), turn) for face, turn in _distinct(found)]
    faces = [face for face, _ in _distinct(again) if face.score >= sure]
    return sorted(faces, key=lambda face: -face.area)


def _sides(longest: int) -> tuple[list[int], list[int]]:
    """Longest sides at which a photograph is searched: those at which in all turns, and the larger ones."""
    sides = [longest * 2 if longest < ENLARGED else longest]
    while sides[-1] > COARSEST:
        sides.append(round(sides[-1] / STEP))
    return [side for side in sides if side <= TURNED], [side for side in sides if side > TURNED]


def _at_turn(find: Find, image: Image, turn: int, sides: Sequence[int]) -> Iterator[Face]:
    """The faces that are found where the picture is turned by this many quarters, counter-clockwise."""
    turned = np.ascontiguousarray(np.rot90(image, turn))
    for side in sides:
        scaled = _scaled(turned, side)
        ratio = np.array([turned.shape[1] / scaled.shape[1], turned.shape[0] / scaled.shape[0]], dtype=np.float32)
        for face in _in_tiles(find, scaled):
            yield _turned_back(face.moved(ratio), turn, image.shape[1], image.shape[0])


def _scaled(image: Image, side: int) -> Image:
    scale = side / max(image.shape[:2])
    size = tuple(max(1, round(length * scale)) for length in image.shape[1::-1])
    return np.asarray(
        cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), dtype=np.uint8
    )


def _in_tiles(find: Find, image: Image) -> Iterator[Face]:
    height, width = image.shape[:2]
    for top, tall in _spans(height):
        for left, wide in _spans(width):
            for face in find(np.ascontiguousarray(image[top : top + tall, left : left + wide])):
                yield face.moved(ONE, (left, top))


def _spans(length: int) -> Iterator[tuple[int, int]]:
    """Start and length of equal parts, at most `TILE` long, that cover a length and share at least `SHARED`."""
    count = max(1, -(-(length - SHARED) // (TILE - SHARED)))
    part = -(-(length + (count - 1) * SHARED) // count)
    for at in range(count):
        yield (length - part) * at // max(1, count - 1), part


def _turned_back(face: Face, turn: int, width: int, height: int) -> Face:
    """A face of the turned picture in pixels of the picture itself, of this width and height."""
    corners = np.stack([face.box[:2], face.box[:2] + face.box[2:]])
    # box corners lie on the borders of pixels, landmarks on their centres
    ends, landmarks = _points(corners, turn, width, height), _points(face.landmarks, turn, width - 1, height - 1)
    start = ends.min(axis=0)
    return Face(np.concatenate([start, ends.max(axis=0) - start]), landmarks, face.score)


def _points(points: NDArray[np.float32], turn: int, right: int, bottom: int) -> NDArray[np.float32]:
    x, y = points.T
    back = ((x, y), (right - y, x), (right - x, bottom - y), (y, bottom - x))[turn]
    return np.stack(back, axis=1).astype(np.float32)


def _distinct(found: Sequence[tuple[Face, int]]) -> list[tuple[Face, int]]:
    """Each face once, by its best score, at most `MOST`; beside it the turn at which it was found."""
    left = sorted(found, key=lambda pair: -pair[0].score)
    boxes = np.array([face.box for face, _ in left]).reshape(-1, 4)
    kept: list[tuple[Face, int]] = []
    unseen = np.ones(len(left), dtype=bool)
    while unseen.any():
        if len(kept) == MOST:
            log.warning("A photograph may have more than %d faces; only the surest so many are looked at.", MOST)
            break
        best = int(unseen.argmax())
        kept.append(left[best])
        unseen &= ~overlapping(boxes[best], boxes)
        unseen[best] = False  # a box without an area overlaps nothing, not even itself
    return kept


def _close_up(find: Find, image: Image, face: Face) -> Face:
    """The face as it is found best, looked for again in all turns in its surroundings."""
    margin = face.box[2:].max()
    left, top = np.maximum(face.box[:2] - margin, 0).astype(int)
    right, bottom = np.ceil(face.box[:2] + face.box[2:] + margin).astype(int)
    part = image[top:bottom, left:right]
    if 0 in part.shape:
        return face
    seen = [
        other.moved(ONE, (int(left), int(top))) for turn in range(4) for other in _at_turn(find, part, turn, [CLOSE])
    ]
    return max([face, *(other for other in seen if face.same(other))], key=lambda other: other.score)
