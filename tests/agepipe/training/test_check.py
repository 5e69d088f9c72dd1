from pathlib import Path

import polars as pl
import pytest
from labelled import labelled_rows

from agepipe.config.base import changed
from agepipe.config.presets import load, names
from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config
from agepipe.core.errors import ConfigError
from agepipe.training.check import check, check_rows


@pytest.mark.parametrize("preset", names())
def test_every_preset_passes(preset: str) -> None:
    check(load(preset), rows_count=5000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learn.batch": 512}, "learn.batch: 512, but there are about 180 training rows"),
        ({"learn.weights": "weights/face.pt"}, "learn.weights: there is no file 'weights/face.pt'"),
        ({"search.grid": {"weights": ["none", "./face"]}}, r"search.grid {'weights': './face'}: .* no file './face'"),
    ],
)
def test_what_cannot_work_here_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    config = changed(Config(), changes)
    with pytest.raises(ConfigError, match=message):
        check(config, rows_count=200)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 500}, "processes: 500, but learn.batch has 64 rows"),
        ({"processes": 3}, "processes: 3, but this machine has cores for 2; take at most that"),
        ({"processes": 2, "threads": 1}, "processes: 2, but --threads allows 1"),
    ],
)
def test_processes_that_cannot_share_a_training_are_refused(
    options: dict[str, int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agepipe.training.check.cores", lambda: 2)
    monkeypatch.setattr("agepipe.config.runtime.cores", lambda: 2)
    with pytest.raises(ConfigError, match=message):
        check(Config(), runtime=Runtime(device="cpu", **options))  # type: ignore[arg-type]
    check(Config(), runtime=Runtime(device="cpu", processes=2))


def test_a_gpu_that_the_machine_does_not_show_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agepipe.config.runtime.gpus", lambda: 0)
    monkeypatch.setattr("agepipe.training.check.OTHER_GPUS", (Path("/nowhere"),))
    with pytest.raises(ConfigError, match="device: 'cuda', but this machine shows no GPU; take 'cpu' or 'auto'"):
        check(Config(), runtime=Runtime(device="cuda"))
    monkeypatch.setattr("agepipe.config.runtime.gpus", lambda: 1)
    check(Config(), runtime=Runtime(device="cuda"))


def test_folds_that_the_rows_do_not_give_are_refused_before_the_first_trial(tmp_path: Path) -> None:
    rows = labelled_rows(tmp_path)
    table = pl.read_parquet(rows.table)
    pl.concat([table.filter(pl.col("label") == 0).head(3), table.filter(pl.col("label") > 0)]).write_parquet(rows.table)
    config = changed(Config(), {"search.folds": 4})
    check_rows(config, rows)
    with pytest.raises(
        ConfigError, match=r"search.folds is 4, but range '1-10' has 3 groups of photographs; use at most 3"
    ):
        check_rows(changed(config, {"search.grid": {"lr": [0.1, 0.2]}}), rows)


def test_a_batch_is_measured_against_the_smallest_training() -> None:
    config = changed(Config(), {"learn.batch": 120, "search.grid": {"lr": [0.1, 0.2]}, "search.folds": 2})
    check(config, rows_count=300)
    with pytest.raises(ConfigError, match=r"about 100 training rows"):
        check(config, rows_count=200)
