"""Servers that a user has set for Prefect and MLflow in general: which ones a command uses, and what it says."""

import os
import subprocess
from pathlib import Path

import pytest
from commands import AGEPIPE, environ, free_port
from servers import MlflowServer

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ConfigError
from agepipe.registry import tracking
from flows import entry
from flows.profile import profile

TEAM = """
active = "team"
[profiles.team]
PREFECT_API_URL = "http://127.0.0.1:{port}/api"
PREFECT_API_KEY = "k"
[profiles.mine]
PREFECT_LOGGING_LEVEL = "DEBUG"
"""
SMALL = (
    "run", "sample", "source.sample_count=280", "ingest.size=36", "learn.size=32", "search.grid={}", "learn.batch=32",
    "final.epochs=1", "evaluate.draws=200", "--device", "cpu", "--workers", "1", "--threads", "1",
)  # fmt: skip


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("PREFECT_"):
            monkeypatch.delenv(name)
    for name in ("PREFECT_API_URL", "PREFECT_API_KEY"):  # so that what a profile sets is undone
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    path = tmp_path / "profiles.toml"
    path.write_text(TEAM.format(port=4200))
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(path))
    return path


def test_the_active_profile_is_read(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert profile() == ("team", {"PREFECT_API_URL": "http://127.0.0.1:4200/api", "PREFECT_API_KEY": "k"})
    monkeypatch.setenv("PREFECT_PROFILE", "mine")
    assert profile() == ("mine", {"PREFECT_LOGGING_LEVEL": "DEBUG"})
    monkeypatch.delenv("PREFECT_PROFILES_PATH")
    monkeypatch.delenv("PREFECT_PROFILE")
    monkeypatch.setenv("PREFECT_HOME", str(profiles.parent))
    assert profile()[0] == "team"
    profiles.unlink()
    assert profile() == ("", {})


def test_a_damaged_file_of_profiles_is_named(profiles: Path) -> None:
    profiles.write_text("active = ")
    with pytest.raises(ConfigError, match=f"PREFECT_PROFILES_PATH: {profiles} cannot be read"):
        profile()


@pytest.mark.parametrize(
    ("variable", "kept", "why"),
    [
        ("http://other/api", "http://kept/api", "PREFECT_API_URL"),
        ("", "http://kept/api", "agepipe up"),
        ("", None, "profile team"),
    ],
)
def test_a_variable_counts_before_the_servers_of_up_and_these_before_a_profile(
    variable: str, kept: str | None, why: str, profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv("PREFECT_API_URL", variable)
    monkeypatch.setenv("PREFECT_API_KEY", "own")
    assert entry._choose_server(kept) == why
    assert os.environ.get("PREFECT_API_URL", "") == (variable or ("" if kept else "http://127.0.0.1:4200/api"))
    assert os.environ["PREFECT_API_KEY"] == "own", "a variable counts before the profile"


def test_a_profile_without_a_server_changes_nothing(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_PROFILE", "mine")
    entry._choose_server(None)
    assert "PREFECT_API_URL" not in os.environ
    assert "PREFECT_LOGGING_LEVEL" not in os.environ


def test_a_server_of_a_profile_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "profiles.toml").write_text(TEAM.format(port=port))
    done = subprocess.run(
        [AGEPIPE, *SMALL], cwd=tmp_path, env={**environ(), "PREFECT_PROFILES_PATH": str(tmp_path / "profiles.toml")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert f"http://127.0.0.1:{port}/api does not answer" in said
    assert "prefect profile use ephemeral" in said


def test_mlflows_own_variables_name_store_and_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGEPIPE_TRACKING", "AGEPIPE_EXPERIMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///team.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "faces")
    runtime = Runtime()
    assert (runtime.tracking, runtime.experiment) == (f"sqlite:///{tmp_path}/team.db", "faces")
    assert entry._used(runtime, None, "") == [
        f"the tracking store sqlite:///{tmp_path}/team.db (MLFLOW_TRACKING_URI)",
        "the experiment faces (MLFLOW_EXPERIMENT_NAME)",
    ]
    assert entry._used(Runtime(tracking="http://named:5000", experiment="named"), None, "") == []
    monkeypatch.setenv("AGEPIPE_TRACKING", "http://127.0.0.1:5000")
    assert Runtime().tracking == "http://127.0.0.1:5000"


@pytest.mark.slow
def test_a_run_uses_the_users_mlflow_server_and_says_so(tmp_path: Path, server: MlflowServer) -> None:
    theirs = {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_EXPERIMENT_NAME": "faces"}
    done = subprocess.run(
        [AGEPIPE, *SMALL], cwd=tmp_path, env={**environ(), **theirs}, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"Uses the tracking store {server.address} (MLFLOW_TRACKING_URI), the experiment faces (" in done.stderr
    client = tracking.client(Runtime(tracking=server.address))
    experiment = client.get_experiment_by_name("faces")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) >= 3
    assert not (tmp_path / "mlruns").exists()
