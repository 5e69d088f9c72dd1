from pathlib import Path

import numpy as np
import pytest
from labelled import labelled_rows

from agepipe.evaluation.metrics import figures
from agepipe.training.workdir import labelled
from studies import peers


def test_an_age_counts_as_the_range_that_holds_it_rounded(tmp_path: Path) -> None:
    rows = labelled_rows(tmp_path)
    ages = labelled(rows)["age"].to_numpy().astype(np.float64)
    exact = figures(peers.judged(rows, ages + 0.4))
    assert exact["accuracy"] == 1.0
    assert exact["mae"] == pytest.approx(0.4)
    older = peers.judged(rows, ages + 1.0)
    assert list(older.predicted) == list(rows.ranges.classes((ages + 1).astype(np.int64)))


def test_an_age_below_the_first_range_counts_as_the_first(tmp_path: Path) -> None:
    rows = labelled_rows(tmp_path)
    assert set(peers.judged(rows, np.full(rows.count, 0.2)).predicted) == {0}


def test_a_folder_without_npm_packages_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["peers", "faces", "--peer", "face-api", "--npm", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        peers.main()
    assert ended.value.code == 2
