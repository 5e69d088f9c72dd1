from pathlib import Path

import pytest

from agepipe.config import runtime as module
from agepipe.config.base import checked
from agepipe.config.runtime import Runtime, cores, visible
from agepipe.core import storage
from agepipe.core.errors import ConfigError


@pytest.mark.parametrize(
    ("devices", "named", "count"),
    [(0, None, 0), (4, None, 4), (4, "", 0), (4, "1,3", 2), (4, "-1", 0), (4, "0,9,1", 1), (2, "GPU-8932f937", 1)],
)
def test_gpus_are_those_that_cuda_shows(devices: int, named: str | None, count: int) -> None:
    assert visible(devices, named) == count


def test_a_local_store_means_one_file_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGEPIPE_TRACKING", raising=False)
    monkeypatch.chdir(tmp_path)
    assert Runtime().tracking == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert Runtime(tracking="http://host:5000").tracking == "http://host:5000"


def test_trials_at_once_follow_the_gpus_not_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gpus", lambda: 1)
    monkeypatch.setattr(module, "cores", lambda: 16)
    assert Runtime().trial_count == 1
    assert Runtime(gpu_trials=3).trial_count == 3
    assert Runtime(gpu_trials=3, workers=2).trial_count == 2
    assert Runtime(device="cpu").trial_count == 16


def test_one_process_a_gpu_unless_asked_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Runtime(device="cpu").processes_for(64) == 1
    monkeypatch.setattr(module, "gpus", lambda: 4)
    monkeypatch.setattr(module, "_can_share", lambda: True)
    assert Runtime().processes_for(64) == 4
    assert Runtime().processes_for(2) == 2
    assert Runtime(processes=2).processes_for(64) == 2
    assert Runtime(device="cpu").processes_for(64) == 1
    monkeypatch.setattr(module, "_can_share", lambda: False)
    assert Runtime().processes_for(64) == 1


def test_processes_are_refused_without_the_extra_and_when_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="option: 'processes' is 0, but input should be greater than or equal to 1"):
        checked(Runtime, {"processes": 0}, "option")
    monkeypatch.setattr(module, "_can_share", lambda: False)
    with pytest.raises(ConfigError, match=r"processes: 2 .* install agepipe\[distributed\]"):
        Runtime(processes=2)
    assert Runtime(processes=1, workspace=Path("w")).threads <= cores()


def test_a_uri_is_a_folder_in_the_cache_and_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGEPIPE_CACHE", str(tmp_path))
    runtime = Runtime(workspace="s3://bucket/team/")
    assert runtime.bucket == runtime.mirror.uri == "s3://bucket/team"
    assert runtime.workspace.parent == tmp_path
    assert runtime.workspace != Runtime(workspace="s3://bucket/other").workspace
    assert Runtime.model_validate_json(runtime.model_dump_json()) == runtime
    monkeypatch.setenv("AGEPIPE_WORKSPACE", "s3://bucket/team")
    assert Runtime() == runtime
    assert Runtime(workspace=tmp_path).bucket == ""


def test_the_cache_is_in_the_home_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGEPIPE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Runtime(workspace="file:///mnt/team").workspace.parent == tmp_path / ".cache" / "agepipe"


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("ftp://host/team", "ftp"),
        ("s3:///team", "s3://BUCKET/FOLDER"),
        ("file://team", "file:///FOLDER"),
        ("gs://bucket/team", r"agepipe\[gcs\]"),
        ("az://bucket/team", r"agepipe\[azure\]"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused(uri: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "find_spec", lambda name: None if name in ("gcsfs", "adlfs") else object())
    with pytest.raises(ConfigError, match=f"workspace: '{uri}' .*{told}"):
        Runtime(workspace=uri)
