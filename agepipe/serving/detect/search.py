"""Detect faces of all sizes and rotations in a photograph, with a detector of upright faces of a limited size range.

YuNet detects upright faces of some 40 to 500 px. So a photograph is searched at its own size, at a third of it, a ninth
and so on; then large and small faces are both detected. Scanned albums do not record which side is up, so the small
scales are searched in all four rotations. A face that is detected upside down has wrong landmarks, so each candidate is
searched again in a close-up, in all four rotations, and the detection with the best score is kept.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from agepipe.model.imaging import Image
from agepipe.serving.detect.face import Face, overlapping

log = logging.getLogger(__name__)

Candidates = Callable[[Image], list[Face]]
"""Detects possible upright faces, uncertain ones too, in px of the image that it is given."""

STEP = 3
"""Ratio of the longest sides of two successive scales."""
COARSEST = 480
"""Longest side, px, at which a face that fills the photograph is detected; smaller scales are not searched."""
ROTATED = 1024
"""Longest side, px, up to which all four rotations are searched; above it, only 0° and those with a face."""
ENLARGED = 1280
"""Longest side, px, below which a photograph is searched at twice its size too, to detect its small faces."""
TILE, OVERLAP = 1600, 192
"""Largest side, px, of the tiles in which a scale is searched, which bounds memory; and the overlap of two neighbours,
px, so that a face which is detected at this scale only is complete in one tile."""
CLOSE_UP = 240
"""Longest side, px, of the close-up of a face with its surroundings; YuNet scores faces of this size best."""
MAX_FACES = 500
"""Most candidates that get a close-up: each takes some 20 ms, during which other connections of the web page wait."""
ONE = np.ones(2)


def searched(find: Candidates, image: Image, min_score: float) -> list[Face]:
    """Detect the faces of a photograph of any size and rotation.

    Args:
        find: detects possible upright faces.
        image: uint8 RGB `(height, width, 3)`.
        min_score: least score of a face in its close-up, 0 to 1.

    Returns:
        The faces, largest first, in px of `image`, with the landmarks in the order of the upright face.
    """
    coarse, fine = _sides(max(image.shape[:2]))
    found = [(face, turn) for turn in range(4) for face in _at_turn(find, image, turn, coarse)]
    turns = {0} | {turn for face, turn in _distinct(found) if face.score >= min_score}
    found += [(face, turn) for turn in sorted(turns) for face in _at_turn(find, image, turn, fine)]
    again = [(_close_up(find, image, face), turn) for face, turn in _distinct(found)]
    faces = [face for face, _ in _distinct(again) if face.score >= min_score]
    return sorted(faces, key=lambda face: -face.area)


def _sides(longest: int) -> tuple[list[int], list[int]]:
    """Longest sides of the scales to search, px: those searched in all rotations, and the larger ones."""
    sides = [longest * 2 if longest < ENLARGED else longest]
    while sides[-1] > COARSEST:
        sides.append(round(sides[-1] / STEP))
    return [side for side in sides if side <= ROTATED], [side for side in sides if side > ROTATED]


def _at_turn(find: Candidates, image: Image, turn: int, sides: Sequence[int]) -> Iterator[Face]:
    """Detect faces in the image after `turn` counter-clockwise rotations by 90°; in px of the unrotated image."""
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


def _in_tiles(find: Candidates, image: Image) -> Iterator[Face]:
    height, width = image.shape[:2]
    for top, tall in _spans(height):
        for left, wide in _spans(width):
            for face in find(np.ascontiguousarray(image[top : top + tall, left : left + wide])):
                yield face.moved(ONE, (left, top))


def _spans(length: int) -> Iterator[tuple[int, int]]:
    """Start and length of equal parts of at most `TILE` px that cover a length and overlap by at least `OVERLAP`."""
    count = max(1, -(-(length - OVERLAP) // (TILE - OVERLAP)))
    part = -(-(length + (count - 1) * OVERLAP) // count)
    for at in range(count):
        yield (length - part) * at // max(1, count - 1), part


def _turned_back(face: Face, turn: int, width: int, height: int) -> Face:
    """A face of the rotated image in px of the unrotated one, which has this width and height."""
    corners = np.stack([face.box[:2], face.box[:2] + face.box[2:]])
    # box corners are on the borders of pixels, landmarks on their centres
    ends, landmarks = _points(corners, turn, width, height), _points(face.landmarks, turn, width - 1, height - 1)
    start = ends.min(axis=0)
    return Face(np.concatenate([start, ends.max(axis=0) - start]), landmarks, face.score)


def _points(points: NDArray[np.float32], turn: int, right: int, bottom: int) -> NDArray[np.float32]:
    x, y = points.T
    back = ((x, y), (right - y, x), (right - x, bottom - y), (y, bottom - x))[turn]
    return np.stack(back, axis=1).astype(np.float32)


def _distinct(found: Sequence[tuple[Face, int]]) -> list[tuple[Face, int]]:
    """Each face once, with its best score and its number of rotations, best first, `MAX_FACES` at most."""
    left = sorted(found, key=lambda pair: -pair[0].score)
    boxes = np.array([face.box for face, _ in left]).reshape(-1, 4)
    kept: list[tuple[Face, int]] = []
    unseen = np.ones(len(left), dtype=bool)
    while unseen.any():
        if len(kept) == MAX_FACES:
            log.warning(
                "A photograph may have more than %d faces; only the %d with the best scores are used.",
                MAX_FACES,
                MAX_FACES,
            )
            break
        best = int(unseen.argmax())
        kept.append(left[best])
        unseen &= ~overlapping(boxes[best], boxes)
        unseen[best] = False  # a box without area does not overlap itself
    return kept


def _close_up(find: Candidates, image: Image, face: Face) -> Face:
    """The detection of the face with the best score, among new ones of its surroundings in all rotations."""
    margin = face.box[2:].max()
    left, top = np.maximum(face.box[:2] - margin, 0).astype(int)
    right, bottom = np.ceil(face.box[:2] + face.box[2:] + margin).astype(int)
    part = image[top:bottom, left:right]
    if 0 in part.shape:
        return face
    seen = [
        other.moved(ONE, (int(left), int(top))) for turn in range(4) for other in _at_turn(find, part, turn, [CLOSE_UP])
    ]
    return max([face, *(other for other in seen if face.same(other))], key=lambda other: other.score)
