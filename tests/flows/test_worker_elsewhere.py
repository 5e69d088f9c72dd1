"""`agepipe up --host` for a small team, and a worker that shares nothing with the machine that deployed the flows."""

import base64
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from browser import started
from commands import AGEPIPE, agepipe, environ, free_port
from test_up import ROOT, Up, log_in, prepare
from workspaces import runtime_in

from agepipe.core.errors import ConfigError
from flows import access, pull, services

CHANGES = [
    "ingest.size=36",
    "learn.size=32",
    "learn.batch=32",
    "search.grid={}",
    "final.epochs=1",
    "evaluate.draws=200",
]


def outer_address() -> str:
    """An address of this machine that is not loopback."""
    found = [one.address for all_of in psutil.net_if_addrs().values() for one in all_of if one.family.name == "AF_INET"]
    outside = [address for address in found if not address.startswith("127.")]
    if not outside:
        pytest.skip("needs a network interface besides loopback, which was not found")
    return outside[0]


def _warning(printed: str) -> str:
    return next(line for line in printed.splitlines() if "password can run programs" in line)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Servers that are asked by the address that other machines would use."""
    folder, address = tmp_path_factory.mktemp("deployer"), outer_address()
    shutil.copy(ROOT / "prefect.yaml", folder)
    ports = [free_port(), free_port()]
    try:
        words = ("--host", "0.0.0.0", "--prefect-port", ports[0], "--mlflow-port", ports[1])
        done = agepipe(folder, "up", *words, timeout=300)
        assert done.returncode == 0, done.stderr
        assert all(f":{port}" in _warning(done.stdout) for port in ports)
        again = agepipe(folder, "up")
        assert "0.0.0.0" in again.stdout
        other = agepipe(folder, "up", "--host", address)
        assert (other.returncode, "--host" in other.stderr) == (1, True)
        runtime = runtime_in(folder)
        yield Up(runtime, f"http://{address}:{ports[0]}", f"http://{address}:{ports[1]}", access.kept(runtime))
    finally:
        agepipe(folder, "down")


@pytest.fixture
def worker(up: Up, tmp_path: Path) -> Iterator[Path]:
    """The folder of the only worker, which was started as the documents say."""
    (own,) = [item for item in services.running(up.runtime).services if item.name == "worker"]
    process = own.process()
    assert process
    services.end_family(process)
    client = {"PREFECT_API_URL": f"{up.prefect}/api", "PREFECT_HOME": str(tmp_path / "home"), **access.client(up.auth)}
    command = f"cd {tmp_path} && exec {AGEPIPE.with_name('prefect')} worker start --pool agepipe"
    with subprocess.Popen(["sh", "-c", command], env={**environ(), **client}, start_new_session=True) as running:
        yield tmp_path
        services.end_family(psutil.Process(running.pid))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_pages_work_in_a_browser_under_the_address_of_the_machine(up: Up, tmp_path: Path) -> None:
    prepare(up, tmp_path)
    with started() as browser:
        log_in(browser, up)
    for address in (up.prefect, up.mlflow):
        with up.open(f"{address}/") as page:
            assert page.headers["Content-Security-Policy"] == "frame-ancestors 'self'"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_reverse_proxy_may_give_the_pages_another_name_and_a_foreign_page_is_refused(up: Up) -> None:
    for address in (up.prefect, up.mlflow):
        named = urllib.request.Request(f"{address}/", headers={"Host": "ages.example.com"})
        assert _status(named, up) == 200
        named.add_header("Origin", "http://evil.example.com")
        assert _status(named, up) == 403


def _status(request: urllib.request.Request, up: Up) -> int:
    request.add_header("Authorization", "Basic " + base64.b64encode(up.auth.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_works_in_the_folder_of_its_worker_and_knows_none_of_the_deployer(
    up: Up, worker: Path, drawn: Path
) -> None:
    deployer = up.runtime.workspace.parent
    assert str(deployer) not in json.dumps(up.ask(f"{up.prefect}/api/deployments/filter", {}))
    before = sorted(deployer.rglob("workspace/*"))
    run = up.run("run", {"preset": "sample", "data": [str(drawn)], "changes": CHANGES})
    up.wait(run, "COMPLETED")
    assert list((worker / "workspace" / "models").iterdir())
    assert (worker / "mlruns" / "mlflow.db").is_file()
    assert sorted(deployer.rglob("workspace/*")) == before


def test_the_folder_of_a_run_is_the_one_that_the_worker_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    for name in ("named", "started", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "temporary")
    monkeypatch.setenv("PWD", str(tmp_path / "started"))
    monkeypatch.delenv(pull.DIRECTORY, raising=False)
    assert pull.workers_folder() == {"directory": str(tmp_path / "started")} == {"directory": str(Path.cwd())}
    monkeypatch.setenv(pull.DIRECTORY, str(tmp_path / "named"))
    assert pull.workers_folder() == {"directory": str(tmp_path / "named")}
    monkeypatch.setenv(pull.DIRECTORY, str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"AGEPIPE_DIRECTORY: '.*nowhere'"):
        pull.workers_folder()


def test_a_worker_without_a_folder_or_with_an_empty_place_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the results would lie in the temporary folder of the run, and go with it."""
    for name in (pull.DIRECTORY, "PWD"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"AGEPIPE_DIRECTORY: ''"):
        pull.workers_folder()
    monkeypatch.setenv(pull.DIRECTORY, str(tmp_path))
    for name in pull.PLACES:
        with monkeypatch.context() as patch, pytest.raises(ConfigError, match=f"{name}: .* {name.lower()}"):
            patch.setenv(name, "")
            pull.workers_folder()
