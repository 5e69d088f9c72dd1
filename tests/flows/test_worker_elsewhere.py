"""`agepipe up --host` for a small team, and a worker that shares nothing with the machine that deployed the flows."""

import json
import shutil
import subprocess
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
        assert "Other machines can reach both pages at 0.0.0.0" in done.stdout
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
    with pytest.raises(ConfigError, match=r"AGEPIPE_DIRECTORY: '.*nowhere' is not a folder on this worker"):
        pull.workers_folder()
