from pathlib import Path

import polars as pl
import pytest
from labelled import labelled_rows

from agepipe.config.base import changed
from agepipe.config.presets import load, names
from agepipe.config.runtime import Where
from agepipe.config.stages import Config
from agepipe.core.errors import ConfigError
from agepipe.training.check import check, check_rows


@pytest.mark.parametrize("preset", names())
def test_every_preset_passes(preset: str) -> None:
    check(load(preset), rows_count=5000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learn.network": "resnet5"}, "learn.network: 'resnet5' is not known; the nearest is 'resnet50'"),
        ({"learn.weights": "IMAGENET"}, "learn.weights: 'IMAGENET' is not known for shufflenet_v2_x0_5"),
        ({"learn.size": 128}, "learn.size: 128 px, but ingest.size stores 108"),
        ({"learn.network": "vit_b_16", "learn.size": 90}, "multiple of 16"),
        ({"learn.network": "inception_v3", "learn.size": 64}, "at least 75"),
        ({"learn.sizes": [80, 64, 96]}, r"learn.sizes: \[80, 64, 96\] must rise"),
        ({"learn.sizes": [64, 64, 96]}, r"learn.sizes: \[64, 64, 96\] must rise"),
        ({"learn.sizes": [64, 80]}, r"learn.sizes: \[64, 80\] must end with learn.size, which is 96"),
        ({"learn.sizes": [64, 128]}, r"learn.sizes: \[64, 128\] must end with learn.size, which is 96"),
        ({"learn.sizes": [96]}, r"learn.sizes: \[96\] does nothing beside learn.size"),
        ({"learn.sizes": [64, 80, 96], "final.epochs": 2}, r"learn.sizes: .* are 3 sizes, but final.epochs is 2"),
        (
            {"learn.sizes": [64, 96], "learn.epochs": 1, "search.grid": {"lr": [0.1, 0.2]}},
            r"learn.sizes: .* are 2 sizes, but learn.epochs is 1",
        ),
        ({"learn.sizes": [64, 96], "learn.network": "vit_b_16"}, "learn.sizes: .* vit_b_16 takes pictures of one size"),
        ({"learn.sizes": [64, 96], "learn.network": "inception_v3"}, "learn.sizes: 64 px, but inception_v3 needs"),
        (
            {"search.grid": {"sizes": [[], [80, 64, 96]]}},
            r"search.grid \{'sizes': \[80, 64, 96\]\}: learn.sizes: .* rise",
        ),
        ({"search.grid": {"network": ["resnet18", "resnet19"]}}, "resnet19"),
        ({"search.grid": {"size": [96, 160]}}, "160 px, but ingest.size stores 108"),
        ({"learn.batch": 512}, "learn.batch: 512, but there are about 180 training rows"),
        ({"learn.nesterov": True, "learn.momentum": 0, "learn.optimizer": "sgd"}, "learn.nesterov"),
        ({"learn.nesterov": True}, r"learn.nesterov: True does nothing without learn.optimizer"),
        ({"learn.target": "years", "learn.label_smoothing": 0.1}, "learn.label_smoothing: 0.1 does nothing"),
        ({"learn.target": "ordinal", "learn.label_smoothing": 0.1}, "learn.label_smoothing: 0.1 does nothing"),
        ({"learn.target": "ordinal", "learn.years_loss": 0.2}, "learn.years_loss: 0.2 does nothing"),
        ({"final.refit": True, "final.patience": 3}, "final.patience: 3 does nothing with final.refit"),
        ({"search.grid": {"years_loss": [0.1, 5.0]}}, "learn.years_loss: 5.0 does nothing without learn.target"),
    ],
)
def test_what_cannot_work_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(changed(Config(), changes), rows_count=200)


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
        check(Config(), where=Where(device="cpu", **options))  # type: ignore[arg-type]
    check(Config(), where=Where(device="cpu", processes=2))


def test_a_gpu_that_the_machine_does_not_show_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agepipe.config.runtime.gpus", lambda: 0)
    monkeypatch.setattr("agepipe.training.check.OTHER_GPUS", (Path("/nowhere"),))
    with pytest.raises(ConfigError, match="device: 'cuda', but this machine shows no GPU; take 'cpu' or 'auto'"):
        check(Config(), where=Where(device="cuda"))
    monkeypatch.setattr("agepipe.config.runtime.gpus", lambda: 1)
    check(Config(), where=Where(device="cuda"))


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


@pytest.mark.parametrize("sizes", [[16, 96], [64, 600]])
def test_sizes_outside_the_bounds_are_refused_by_name(sizes: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"'learn\.sizes\.[01]' is (16|600), but input should be"):
        changed(Config(), {"learn.sizes": sizes})


def test_sizes_that_can_work_pass() -> None:
    check(changed(Config(), {"learn.sizes": [64, 80, 96], "search.grid": {"sizes": [[], [64, 96]]}}), rows_count=500)
    check(changed(Config(), {"learn.sizes": [64, 96], "learn.epochs": 1}), rows_count=500)  # no trial, no epochs needed
