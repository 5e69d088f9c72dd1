"""The comparison of recipes as its user runs it: a real process that trains, however little."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from labelled import labelled_rows
from photographs import chips

from agepipe.config import presets
from agepipe.config.runtime import Runtime
from agepipe.config.stages import AugmentSettings, Config, LearnSettings
from agepipe.core.errors import ConfigError
from agepipe.training.job import Fitted, Job
from agepipe.training.loop import CHECKPOINT
from agepipe.training.workdir import labelled, train_in_processes
from agepipe.training.worker import interrupt, resume
from studies.recipes import ALL, ALWAYS, FIRST, ON_DEMAND, development, usual
from studies.trying import Bench, Recipe

ROOT = Path(__file__).resolve().parents[2]


def _usual(variant: str) -> dict[str, Recipe]:
    return usual(presets.load("laptop", variant=variant).learn)


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    few = ("--variant", "scratch", "--rows", "220", "--seeds", "1", "--threads", "1")
    return subprocess.run(
        [sys.executable, "-m", "studies.recipes", str(folder), *few, *words], cwd=ROOT, capture_output=True, text=True,
        timeout=280, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _cells(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines() if line.startswith("│")]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    chips(folder, 220)
    return folder


@pytest.mark.parametrize(
    ("variant", "name"), [(variant, name) for variant in ("", "scratch") for name in (*_usual(variant), *ON_DEMAND)]
)
def test_every_recipe_can_be_trained(variant: str, name: str) -> None:
    laptop = presets.load("laptop", variant=variant)
    learn = ALL[name].learn(laptop.learn, 9)
    Config(learn=learn, ingest=laptop.ingest)
    ALL[name].check(name, laptop.learn, 9)
    differs = learn != laptop.learn.model_copy(update={"epochs": 9}) or ALL[name].processes > 1
    assert differs == (name != FIRST)


def test_the_first_is_the_preset_and_other_networks_are_on_demand() -> None:
    for variant in ("", "scratch"):
        names = _usual(variant)
        assert next(iter(names)) == FIRST
        assert not names.keys() & ON_DEMAND.keys()
    assert ALWAYS[FIRST] == Recipe()
    assert "layer decay 0.7" in _usual("")
    assert "layer decay 0.7" not in _usual("scratch")


def test_a_recipe_can_multiply_the_rate_of_any_preset() -> None:
    for variant in ("", "scratch"):
        learn = presets.load("laptop", variant=variant).learn
        assert ALL["twice the rate"].learn(learn, 6).lr == pytest.approx(2 * learn.lr)


def test_several_networks_share_out_the_epochs() -> None:
    laptop = presets.load("laptop", variant="scratch").learn
    assert Recipe(networks=3).learn(laptop, 54).epochs == 18
    with pytest.raises(ConfigError, match="--epochs: 2, but 'three' has 3 networks"):
        Recipe(networks=3).check("three", laptop, 2)
    with pytest.raises(ConfigError, match=r"are 3 sizes, but --epochs of 'growing' is 2"):
        Recipe().check("growing", laptop, 2)


@pytest.mark.slow
def test_the_tables_have_a_row_for_each_recipe_and_what_is_kept_is_not_trained_again(
    photographs: Path, tmp_path: Path
) -> None:
    names = ("three networks, a third as long", "without growing sizes")
    done = _run(photographs, "--epochs", "9", "--kept", str(tmp_path), "--only", *names)
    assert done.returncode == 0, done.stderr
    lines = _cells(done)
    assert [line[1] for line in lines] == [FIRST, *names] * 2
    assert [line[6] for line in lines[:3]] == ["9", "3 × 3", "9"]
    assert [" to " in line[5] for line in lines[:3]] == [True] * 3
    assert [" to " in line[2] for line in lines[3:]] == [False, True, True]
    made = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = _run(photographs, "--epochs", "9", "--kept", str(tmp_path), "--only", names[1])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == made
    assert [line for line in _cells(again) if line[1] == names[1]] == [line for line in lines if line[1] == names[1]]


def test_rows_that_a_run_of_the_preset_locks_are_not_among_those_compared(photographs: Path, tmp_path: Path) -> None:
    config, runtime = presets.load("laptop", {"source.data": (str(photographs),)}), Runtime(workspace=tmp_path)
    compared = labelled(development(config, runtime))
    (folder,) = (tmp_path / "splits").iterdir()
    locked = pl.read_parquet(folder / "test.parquet")
    assert len(locked) > 0
    assert len(compared) + len(locked) == len(list(photographs.iterdir()))
    assert not set(locked["digest"]) & set(compared["digest"])


@pytest.mark.slow
def test_too_few_epochs_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    done = _run(
        tmp_path / "nothing",
        "--preset",
        "sample",
        "--variant",
        "",
        "--epochs",
        "1",
        "--only",
        "two networks, half as long",
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "--epochs: 1, but 'two networks, half as long' has 2 networks to train; give more."


@pytest.mark.slow
def test_with_equal_time_a_cheaper_recipe_gets_more_epochs(tmp_path: Path) -> None:
    learn = LearnSettings(network="shufflenet_v2_x0_5", size=36, batch=16, augment=AugmentSettings(flip=0.0))
    bench = Bench.of(
        learn, labelled_rows(tmp_path), 160, (1,), Runtime(workspace=tmp_path, threads=1), tmp_path / "kept"
    )
    costly, cheap = Recipe({"batch": 8, "augment.jpeg": 0.5}), Recipe({"batch": 64, "augment.shift": False})
    seconds = bench.seconds(costly, 20)
    assert bench.epochs(cheap, seconds) > 20
    assert bench.epochs(Recipe({"sizes": (32, 36)}, networks=2), 0.0) == 4, "each network needs an epoch of each size"


def test_the_answers_of_several_networks_are_averaged(tmp_path: Path) -> None:
    """Two of them are no third training: their distributions, not their figures, are averaged."""
    learn = LearnSettings(network="shufflenet_v2_x0_5", size=36, batch=16, lr=0.02, target="years")
    bench = Bench.of(
        learn, labelled_rows(tmp_path), 160, (1,), Runtime(workspace=tmp_path, threads=1), tmp_path / "kept"
    )
    both = bench.told(Recipe(networks=2), 2)
    singles = [replace(bench, seeds=(seed,)).told(Recipe(), 1).judged() for seed in (1, 1001)]
    assert both.epochs == "2 × 1"
    mean = np.mean([one.probabilities for one in singles], axis=0)
    assert np.allclose(both.judged().probabilities, mean, atol=1e-5)
    assert not np.allclose(singles[0].probabilities, singles[1].probabilities, atol=1e-3)


@pytest.mark.slow
def test_a_training_that_was_interrupted_goes_on_from_its_last_epoch(tmp_path: Path) -> None:
    learn = LearnSettings(network="shufflenet_v2_x0_5", size=36, batch=16, lr=0.02)
    runtime, epochs = Runtime(workspace=tmp_path, threads=1), 6
    whole = Bench.of(learn, labelled_rows(tmp_path), 160, (1,), runtime, tmp_path / "whole")
    expected = whole.told(Recipe(), epochs).said[0]
    bench = replace(whole, kept=tmp_path / "kept")
    bench.kept.mkdir()
    with ThreadPoolExecutor(1) as pool:
        checkpoint = pool.submit(_interrupt_at_first_checkpoint, bench.kept)
        with pytest.raises(KeyboardInterrupt):
            bench.told(Recipe(), epochs)
    resume()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("studies.trying.train_in_processes", _going_on)
        np.testing.assert_array_equal(bench.told(Recipe(), epochs).said[0].years, expected.years)
    assert not checkpoint.result().parent.exists()


def _interrupt_at_first_checkpoint(folder: Path) -> Path:
    while not (found := list(folder.glob(f"*/{CHECKPOINT}"))):
        time.sleep(0.01)
    interrupt()
    return found[0]


def _going_on(job: Job, processes: int) -> Fitted:
    """Train as before, from a checkpoint that must be there."""
    assert (job.folder / CHECKPOINT).is_file()
    return train_in_processes(job, processes)
