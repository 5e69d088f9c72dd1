"""What of the user's environment and folder reaches Prefect, MLflow and the requests to this machine's own servers."""

import os
import subprocess
import sys
import urllib.request
from io import BytesIO, TextIOWrapper
from pathlib import Path

import httpx
import pytest
from commands import environ

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ConfigError
from flows import environment, services, shell

SHOW = """
import os, sys
from pathlib import Path
from agepipe.config.runtime import Runtime
from flows import environment
environment.prepare(Runtime(workspace=Path("workspace")), None)
from prefect.settings import get_current_settings, temporary_settings, PREFECT_CLIENT_MAX_RETRIES
for known in (get_current_settings(), get_current_settings().copy_with_update({PREFECT_CLIENT_MAX_RETRIES: 1})):
    print(known.api.url, known.api.key, known.home, known.server.database.connection_url.get_secret_value())
"""


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower() in ("no_proxy", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("before", [None, "", "intranet.example", "*", "localhost , intranet.example"])
def test_loopback_goes_through_no_proxy(before: str | None, clean: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, before or "")
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    shell.bypass_proxies()
    shell.bypass_proxies()  # twice is as good as once
    for host in ("127.0.0.1:4200", "localhost:5000"):
        assert urllib.request.proxy_bypass(host)
    with httpx.Client() as client:
        for url in ("http://127.0.0.1:1/", "http://localhost/", "http://[::1]:1/"):
            pool = client._transport_for_url(httpx.URL(url))._pool  # type: ignore[attr-defined]
            assert "Proxy" not in type(pool).__name__
    if before and before != "*":
        assert ("intranet.example" in os.environ["no_proxy"] and "intranet.example" in os.environ["NO_PROXY"]) or (
            "intranet.example" not in before
        )
        assert os.environ["no_proxy"].count("localhost") == 1


def test_a_proxy_that_prefects_client_cannot_speak_to_is_left_out(clean: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="gopher"):
        httpx.Client()
    shell.drop_proxies()
    httpx.Client().close()
    assert os.environ["https_proxy"] == "http://127.0.0.1:9"


@pytest.mark.slow
@pytest.mark.parametrize("pyproject", ['[tool.prefect.api]\nkey = "theirs"\n', "[tool.prefect\n"])
def test_files_and_variables_of_another_prefect_are_not_ours(pyproject: str, tmp_path: Path) -> None:
    """Neither at import nor when a setting is changed for a while, which reads all files again."""
    away = "http://127.0.0.1:9/api"
    (tmp_path / "prefect.toml").write_text(f'profiles_path = "/nope"\n[api]\nurl = "{away}"\nkey = "theirs"\n')
    (tmp_path / "pyproject.toml").write_text(pyproject)  # the second is not even TOML
    (tmp_path / ".env").write_text(f"PREFECT_API_URL={away}\nPREFECT_SERVER_DATABASE_CONNECTION_URL=sqlite:///x\n")
    theirs = {
        "PREFECT_HOME": "/nope", "PREFECT_PROFILE": "work", "PREFECT_PROFILES_PATH": "/nope/profiles.toml",
        "PREFECT_API_URL": "", "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////nope/theirs.db",
        "PREFECT_API_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////nope/theirs.db",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SHOW], cwd=tmp_path, env={**environ(), **theirs}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    home = tmp_path / "workspace" / "prefect"
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"None None {home} sqlite+aiosqlite:///{home}/prefect.db"] * 2


def test_the_users_own_server_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"PREFECT_API_URL": "http://10.0.0.5:4200/api", "PREFECT_API_KEY": "k", "PREFECT_CLIENT_MAX_RETRIES": "2"}
    for name, value in {**kept, "PREFECT_HOME": "/theirs", "MLFLOW_RUN_ID": "theirs"}.items():
        monkeypatch.setenv(name, value)
    ours = environment.inherited()
    assert {name: ours[name] for name in kept} == kept
    assert not {"PREFECT_HOME", "MLFLOW_RUN_ID"} & set(ours)
    assert ours["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize("name", ["WEB_CONCURRENCY", "UVICORN_WORKERS", "UVICORN_RELOAD", "UVICORN_SSL_KEYFILE"])
def test_settings_of_another_web_server_reach_none_of_ours(
    name: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "2")
    assert name not in services.environ(runtime, None)
    before = dict(os.environ)
    try:
        environment.prepare(runtime, None)
        assert name not in os.environ, "the temporary server has the command's environment"
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_a_path_that_sqlite_cannot_open_is_refused() -> None:
    long = Path("/" + "/".join(["x" * 100] * 6))
    with pytest.raises(ConfigError, match="--workspace"):
        environment.prepare(Runtime(workspace=long), None)
    with pytest.raises(ConfigError, match="--tracking"):
        environment.prepare(Runtime(workspace=Path("/tmp"), tracking=f"sqlite:///{long}/mlflow.db"), None)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_without_the_letter_shows_another(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, TextIOWrapper(BytesIO(), encoding=encoding))
    shell.readable()
    for stream in (sys.stdout, sys.stderr):
        print("photos → ranges \udcff", file=stream, flush=True)
        assert b"photos" in stream.buffer.getvalue()  # type: ignore[attr-defined]
