"""Many photographs predicted in parts: as without parts, by any runner, and after a kill the missing parts alone."""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest
from bundles import make_bundle
from commands import AGEPIPE, agepipe
from photographs import chips, tar_of

from agepipe.config.runtime import Runtime
from agepipe.core.artifacts import MANIFEST
from agepipe.core.errors import ConfigError
from agepipe.model.predictor import Predictor
from agepipe.serving import predict as alone
from agepipe.serving.shards import combined
from flows import serving

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, ...]:
    """A folder of 40 photographs and one that is none, and an archive of 60."""
    files = chips(tmp_path / "faces", 40)
    (tmp_path / "faces" / "note.txt").write_text("no picture")
    contents = files[np.random.default_rng(0).integers(40)].read_bytes()
    archive = tar_of(tmp_path / "faces.tar", {f"{at}.jpg": contents for at in range(60)})
    return tmp_path / "faces", archive


def finished(workspace: Path) -> dict[Path, int]:
    """When each finished part was written, ns."""
    found = workspace.glob(f"predicted/[!.]*/{MANIFEST}")
    return {path: path.stat().st_mtime_ns for path in found}


def test_parts_on_a_runner_are_kept_and_equal_to_the_whole(
    places: tuple[Path, ...], tmp_path: Path, runtime: Runtime, prefect_server: None
) -> None:
    from flows.predict import predict

    bundle = make_bundle(tmp_path / "bundle").folder
    expected = alone.predict(Predictor.load(bundle), places, None)
    parts = predict(places, str(bundle), "", aligned=True, shard=25, runtime=runtime)
    faces, rejects = combined(parts)
    assert faces.collect().equals(expected.faces)
    assert rejects.equals(expected.rejects)
    kept = finished(runtime.workspace)
    assert len(parts) == len(kept) == 5
    (tmp_path / "faces" / "note.txt").write_text("still no picture")
    again = predict(places, str(bundle), "", aligned=True, shard=25, runtime=runtime)
    assert kept.items() < finished(runtime.workspace).items()
    assert len(finished(runtime.workspace)) == 6, "one file has changed, so one part was predicted"
    assert combined(again)[0].collect().equals(expected.faces)


@pytest.mark.parametrize("option", [{"workers": 2}, {"shard": 7}, {"refresh": True}, {"scheduler": "tcp://x:1"}])
def test_an_option_of_the_parts_without_a_runner_is_refused(option: dict[str, object], tmp_path: Path) -> None:
    chips(tmp_path / "faces", 1)
    with pytest.raises(ConfigError, match=next(iter(option))):
        serving.predict([tmp_path / "faces"], tmp_path / "out.csv", **option)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["processes", "dask"])
def test_killed_in_the_middle_it_continues_with_the_missing_parts(
    runner: str, places: tuple[Path, ...], tmp_path: Path, prefect_server: None
) -> None:
    from prefect.settings import PREFECT_API_URL

    make_bundle(tmp_path / "bundle")
    words = ["predict", *places, "--aligned", "--model", "bundle", "--output"]
    assert agepipe(tmp_path, *words, "whole.parquet").returncode == 0
    words += ["parts.parquet", "--runner", runner, "--shard", "1", "--workers", "2", "--workspace", "workspace"]
    environ = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    with (tmp_path / "output").open("wb") as output:
        running = subprocess.Popen([AGEPIPE, *words], cwd=tmp_path, env=environ, stdout=output, stderr=output)
    while len(finished(tmp_path / "workspace")) < 5:
        assert running.poll() is None, (tmp_path / "output").read_text()
        time.sleep(0.01)
    started = psutil.Process(running.pid).children(recursive=True)
    for process in (running, *started):
        process.send_signal(signal.SIGKILL)
    running.wait()
    psutil.wait_procs(started, timeout=60)
    kept = finished(tmp_path / "workspace")
    assert 5 <= len(kept) < 101
    assert not (tmp_path / "parts.parquet").exists()

    done = subprocess.run([AGEPIPE, *words], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "100 faces of 100 photographs are in parts.parquet." in done.stdout
    assert kept.items() <= finished(tmp_path / "workspace").items()
    whole, parts = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("whole", "parts"))
    assert parts.equals(whole)
    assert not list((tmp_path / "workspace" / "predicted").glob(".*"))
