"""Faces keep their number from frame to frame, and a still face keeps its range."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from agepipe.model.ages import AgeRanges
from agepipe.model.decoding import Decoding, Rule, decide
from agepipe.model.predictor import Prediction
from agepipe.serving.detect.face import Face
from agepipe.serving.tracker import PATIENCE, Tracker, overlap

RATE = 25.0


def face(left: float, top: float = 100, side: float = 100) -> Face:
    return Face(np.array([left, top, side, side], np.float32), np.zeros((5, 2), np.float32), 0.9)


def said(*rows: list[float], years: float = 30.0) -> Prediction:
    return Prediction(np.array(rows, np.float32), np.full(len(rows), years, np.float32))


def test_faces_keep_their_numbers_while_they_move_and_change_places_in_the_list() -> None:
    tracker = Tracker()
    first = tracker.update([face(0), face(300)], said([1, 0], [0, 1]), 0.0)
    assert [track.number for track in first] == [1, 2]
    second = tracker.update([face(290), face(15)], said([0, 1], [1, 0]), 0.04)
    assert [track.number for track in second] == [2, 1]
    assert [track.label for track in second] == [1, 0]
    third = tracker.update([face(30), face(600)], said([1, 0], [1, 0]), 0.08)
    assert [track.number for track in third] == [1, 3]


def test_a_face_that_was_lost_for_a_moment_is_known_and_one_long_gone_is_not() -> None:
    tracker = Tracker()
    tracker.update([face(0)], said([1, 0]), 0.0)
    assert tracker.update([], said(), 0.3) == []
    assert tracker.update([face(0)], said([1, 0]), 0.6)[0].number == 1
    assert tracker.update([face(0)], said([1, 0]), 0.6 + PATIENCE + 0.01)[0].number == 2


def test_a_new_face_starts_from_its_own_answer_and_later_ones_are_averaged() -> None:
    tracker = Tracker()
    tracker.update([face(0)], said([0.9, 0.1], years=10), 0.0)
    (track,) = tracker.update([face(0)], said([0.5, 0.5], years=20), 0.04)
    assert track.years == pytest.approx(15)
    assert track.probabilities == pytest.approx([0.7, 0.3])
    for frame in range(2, 200):
        (track,) = tracker.update([face(0)], said([0.1, 0.9], years=40), frame / RATE)
    assert track.probabilities == pytest.approx([0.1, 0.9], abs=0.01)
    assert (track.label, track.probability) == (1, pytest.approx(0.9, abs=0.01))


def test_forgetting_begins_anew() -> None:
    tracker = Tracker()
    tracker.update([face(0)], said([1, 0]), 0.0)
    tracker.reset()
    (track,) = tracker.update([face(0)], said([0, 0, 1]), 0.04)
    assert (track.number, track.label) == (2, 2)


@pytest.mark.parametrize("decoding", ["likeliest", "median"])
def test_a_still_face_between_two_ranges_does_not_flicker(decoding: Decoding) -> None:
    """A minute at 25 frames/s, four ranges, the inner two level but for noise: 11.5 changes a second without."""
    random, frames = np.random.default_rng(5), int(60 * RATE)
    low = np.clip(random.normal(0.4, 0.08, frames), 0, 0.8)
    answers = np.stack([np.full(frames, 0.1), low, 0.8 - low, np.full(frames, 0.1)], axis=1)
    tracker, shown = Tracker(), []
    for at, answer in enumerate(answers):
        jitter = float(random.normal(0, 3))
        (track,) = tracker.update([face(100 + jitter)], said(list(answer)), at / RATE, Rule(decoding))
        assert track.number == 1
        shown.append(track.label)
    raw, calm = changes(decide(answers, decoding)) / 60, changes(shown) / 60
    assert raw > 5
    assert calm < 0.6


def changes(labels: Sequence[int] | NDArray[np.int64]) -> int:
    return int((np.diff(labels) != 0).sum())


def test_the_median_is_shown_where_the_model_answers_by_it_and_holds_against_a_hair() -> None:
    tracker, rule = Tracker(), Rule("median")
    (track,) = tracker.update([face(0)], said([0.4, 0.15, 0.3, 0.15]), 0.0, rule)
    assert track.label == 1, "the likeliest would be the first"
    track.probabilities = np.array([0.51, 0.2, 0.2, 0.09])
    track.add(face(0), track.probabilities, 30, 0.04)
    assert track.label == 1, "the younger side is ahead by 0.02 only"
    track.add(face(0), np.array([0.9, 0.1, 0, 0]), 30, 2.0)
    assert track.label == 0


def test_the_set_grows_from_the_answer_and_has_the_shown_range_in_it() -> None:
    plain, calibrated = Tracker(), Tracker()
    answer = said([0.05, 0.5, 0.4, 0.05])
    assert plain.update([face(0)], answer, 0.0)[0].ends is None
    (track,) = calibrated.update([face(0)], answer, 0.0, Rule("likeliest", 0.8))
    assert track.ends == (1, 2)
    track.rule, track.probabilities = Rule("likeliest", 0.2), np.array([0.05, 0.45, 0.46, 0.04])
    assert (track.label, track.ends) == (1, (1, 2)), "the third is ahead by a hair, the second still shown"


@pytest.mark.parametrize("decoding", ["likeliest", "median"])
def test_the_age_that_is_shown_lies_in_the_range_that_is_shown(decoding: Decoding) -> None:
    """For any probabilities, any ages and any history."""
    ranges = AgeRanges.of("utkface")
    random, tracker = np.random.default_rng(7), Tracker()
    for at in range(400):
        shares = random.dirichlet(np.full(len(ranges), random.choice([0.05, 0.5, 5.0])))
        answer = said(list(shares), years=float(random.uniform(0, 130)))
        (track,) = tracker.update([face(0)], answer, at / RATE, Rule(decoding))
        shown = ranges.ranges[track.label]
        assert shown.low <= round(track.age(ranges)) <= (shown.high or np.inf)
        if shown.low < track.years < (shown.high or np.inf):
            assert track.age(ranges) == track.years, "an age that fits stays as it is"


def test_two_faces_that_overlap_never_share_a_track() -> None:
    tracker = Tracker()
    tracker.update([face(0)], said([1, 0]), 0.0)
    one, other = tracker.update([face(10), face(40)], said([1, 0], [0, 1]), 0.04)
    assert (one.number, other.number) == (1, 2)
    assert (one.label, other.label) == (0, 1)
    again = tracker.update([face(12), face(25)], said([1, 0], [0, 1]), 0.08)
    assert len({track.number for track in again}) == 2


def test_overlap_is_intersection_over_union() -> None:
    assert overlap(face(0).box, face(0).box) == 1
    assert overlap(face(0).box, face(50).box) == pytest.approx(1 / 3)
    assert overlap(face(0).box, face(100).box) == 0
    assert overlap(face(0, side=0).box, face(0, side=0).box) == 0
