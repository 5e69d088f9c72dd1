"""Prediction sets of judged rows."""

import re

import numpy as np
import pytest
from test_compute import RANGES, card, drawn

from agepipe.evaluation.coverage import no_sets, sets_of
from agepipe.model.calibration import scores, thresholds
from agepipe.model.decoding import Decoding


@pytest.mark.parametrize("decoding", ["likeliest", "median"])
def test_sets_reach_their_level_on_exchangeable_rows(decoding: str) -> None:
    covered = []
    for seed in range(40):
        judged, _ = drawn(800, seed)
        judged = judged._replace(decoding=decoding)
        first, second = (judged.subset(np.arange(800) % 2 == part) for part in (0, 1))
        found = thresholds(scores(first.probabilities, first.labels, decoding))
        sets = sets_of(card(thresholds=found, decoding=decoding), second, 90)
        assert sets is not None
        covered.append(sets.measures(second.labels)["coverage"].mean())
    assert 0.89 <= np.mean(covered) <= 0.915


def test_why_there_are_none() -> None:
    assert "final.validation" in no_sets(card(), 90)
    assert re.findall(r"\d+", no_sets(card(thresholds={95: 0.9, 80: 0.5}), 90)) == ["90", "80", "95"]
    judged, _ = drawn(5)
    assert sets_of(card(thresholds={80: 0.5}), judged, 90) is None


@pytest.mark.parametrize("decoding", ["likeliest", "median"])
def test_a_set_begins_with_the_answer_of_its_own_decoding(decoding: Decoding) -> None:
    judged, _ = drawn(400)
    judged = judged._replace(decoding=decoding)
    other = "median" if decoding == "likeliest" else "likeliest"
    assert (judged.predicted != judged._replace(decoding=other).predicted).any()
    bundle = card(thresholds={90: 0.0}, decoding=decoding)
    sets = sets_of(bundle, judged, 90)
    assert sets is not None
    assert sets.low.tolist() == sets.high.tolist() == judged.predicted.tolist()
    assert bundle.spans(judged.probabilities) == [RANGES.span(k, k) for k in judged.predicted.tolist()]
