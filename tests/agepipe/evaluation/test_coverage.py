"""Prediction sets of judged rows."""

import re

import pytest
from test_compute import RANGES, card, drawn

from agepipe.evaluation.coverage import no_sets, sets_of
from agepipe.model.decoding import Decoding


def test_a_missing_prediction_set_is_explained() -> None:
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
