"""Which evaluation a model is shown beside."""

from pathlib import Path

from bundles import make_bundle, make_rows
from folders import evaluated

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings, ReleaseSettings
from agepipe.registry import register
from tasks.evaluate import champions_evaluation


def test_the_champion_s_finished_evaluation_of_the_same_rows_is_found(tmp_path: Path, tracked: Runtime) -> None:
    rows, other = make_rows(tmp_path / "rows", 60), make_rows(tmp_path / "others", 60, seed=4)
    champion, model = make_bundle(tmp_path / "champion"), make_bundle(tmp_path / "model", sharpness=9)
    find = champions_evaluation.fn
    assert find(model, rows, "", tracked) is None  # nobody is champion
    register.register(champion, None, ReleaseSettings(), tracked)
    assert find(model, rows, "", tracked) is None  # it was not judged yet
    done = evaluated(champion, rows, EvaluateSettings(draws=100), tracked)
    assert find(model, rows, "", tracked) == done
    assert find(model, other, "", tracked) is None
    assert find(champion, rows, "", tracked) is None
