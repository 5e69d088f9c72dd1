"""The servers of `agepipe up`: what they serve, a run that is cancelled, and a foreign page in a real browser.

The browser knows the passwords: its user has logged in to both pages before the foreign one is opened.
"""

import base64
import dataclasses
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil
import pytest
from browser import Browser, started
from bundles import make_bundle
from commands import agepipe, free_port, lives
from foreign import EVIL, REBOUND, TRIES, Foreign, served, shows
from pages import served as page_served
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from test_cancel import FOR_EVER, check_killed, wait_for
from workspaces import runtime_in

from agepipe.config import presets
from agepipe.config.runtime import Runtime
from agepipe.serving.detect.haar import Haar
from agepipe.serving.model_source import FixedModel
from agepipe.serving.web.session import SharedModel
from flows import access, services

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Up:
    """What runs, and what is asked of it by its owner."""

    runtime: Runtime
    prefect: str
    mlflow: str
    auth: str

    def ask(self, url: str, body: object = None) -> Any:
        """The JSON that answers a request with the password; a server whose database is locked is asked again."""
        for pause in (1, 2, 4, 8, 0):
            try:
                with self.open(url, body) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or not pause:
                    raise
                error.close()
            time.sleep(pause)
        raise AssertionError(url)

    def open(self, url: str, body: object = None) -> Any:
        """The answer itself."""
        request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", "Basic " + base64.b64encode(self.auth.encode()).decode())
        for name, value in self._csrf() if url.startswith(self.prefect) and body is not None else ():
            request.add_header(name, value)
        return urllib.request.urlopen(request, timeout=60)

    def deployment(self, name: str) -> Any:
        """What the server knows of a deployment."""
        (found,) = [one for one in self.ask(f"{self.prefect}/api/deployments/filter", {}) if one["name"] == name]
        return found

    def run(self, name: str, parameters: object) -> str:
        """Have a deployment run by the worker; the address of its flow run."""
        asked = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
        run = self.ask(f"{self.prefect}/api/deployments/{self.deployment(name)['id']}/create_flow_run", asked)
        return f"{self.prefect}/api/flow_runs/{run['id']}"

    def wait(self, run: str, state: str) -> str:
        """What a flow run says once it is in a state."""
        limit = time.monotonic() + 240
        while (found := self.ask(run)["state"])["type"] != state:
            assert time.monotonic() < limit, found
            time.sleep(0.5)
        return str(found["message"])

    def _csrf(self) -> list[tuple[str, str]]:
        token = self.ask(f"{self.prefect}/api/csrf-token?client=test")["token"]
        return [("Prefect-Csrf-Client", "test"), ("Prefect-Csrf-Token", token)]

    def state(self) -> dict[str, object]:
        """All that the foreign page tries to change."""
        prefect, mlflow = f"{self.prefect}/api", f"{self.mlflow}/api/2.0/mlflow"
        found = {name: self.ask(f"{prefect}/{name}/filter", {}) for name in ("flows", "deployments", "flow_runs")}
        every = {"experiment_ids": ["0", "1"], "run_view_type": "ALL"}
        return {
            **{name: sorted(one["id"] for one in items) for name, items in found.items()},
            "experiments": self.ask(f"{mlflow}/experiments/search?max_results=9")["experiments"],
            "runs": [one["info"]["run_id"] for one in self.ask(f"{mlflow}/runs/search", every)["runs"]],
            "model": self.ask(f"{mlflow}/registered-models/get?name=mine")["registered_model"],
        }


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    shutil.copy(ROOT / "prefect.yaml", folder)
    ports = [free_port(), free_port()]
    runtime = runtime_in(folder)
    try:
        done = agepipe(folder, "up", "--prefect-port", ports[0], "--mlflow-port", ports[1], timeout=300)
        assert done.returncode == 0, done.stderr
        auth = access.kept(runtime)
        assert f"Password {auth}" in done.stdout
        assert f":{ports[1]}/#/experiments/1/runs?workflowType=machine_learning" in done.stdout
        kept = services.running(runtime).services
        assert [item.name for item in kept] == ["prefect", "mlflow", "worker"]
        roots = [process for item in kept if (process := item.process())]
        family = [*roots, *(child for root in roots for child in root.children(recursive=True))]
        yield Up(runtime, f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", auth)
    finally:
        last = agepipe(folder, "down")
    assert last.stdout.strip() == "Stopped: worker, mlflow, prefect."
    assert [one for one in psutil.wait_procs(family, timeout=10)[1] if lives(one)] == []


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with started(REBOUND) as browser:
        yield browser


def log_in(browser: Browser, up: Up) -> list[str]:
    """As a person does with what `agepipe up` has printed; the addresses that both pages asked."""
    asked = browser.visit(f"{up.prefect}/deployments").requests
    box = WebDriverWait(browser.driver, 60).until(
        lambda driver: driver.find_element(By.CSS_SELECTOR, "input[type=password]")
    )
    box.send_keys(up.auth)
    box.submit()
    browser.driver.get(f"{up.prefect}/deployments")
    assert shows(browser, "weekly")
    asked += browser.visit(up.mlflow.replace("//", f"//{up.auth}@")).requests
    asked += browser.visit(f"{up.mlflow}/#/experiments/1/runs?workflowType=machine_learning").requests
    assert shows(browser, "shown-to-its-owner")
    return asked + browser.requests()


def prepare(up: Up, tmp_path: Path) -> dict[str, str]:
    """A run and a registered version for the pages to show and the foreign one to change."""
    api = f"{up.mlflow}/api/2.0/mlflow"
    run = up.ask(f"{api}/runs/create", {"experiment_id": "1", "run_name": "shown-to-its-owner"})["run"]["info"][
        "run_id"
    ]
    up.ask(f"{api}/registered-models/create", {"name": "mine"})
    up.ask(f"{api}/model-versions/create", {"name": "mine", "source": f"runs:/{run}/model", "run_id": run})
    deployment = up.deployment("weekly")
    ids = {"deployment": deployment["id"], "flow": deployment["flow_id"], "run": run}
    return {**ids, "mark": str(tmp_path / "executed")}


def refused(up: Up, url: str, body: object) -> int:
    with pytest.raises(urllib.error.HTTPError) as caught:
        up.ask(url, body)
    with caught.value as answer:
        return answer.code


@pytest.mark.parametrize(
    "variables", [{"command": "touch planted"}, {"env": {"A": "b"}}, {"env.A": "b"}, {"working_dir": "/"}]
)
def test_not_even_its_owner_can_have_a_run_start_another_program(up: Up, variables: dict[str, object]) -> None:
    api = f"{up.prefect}/api/deployments"
    one = up.deployment("weekly")
    planned = {"state": {"type": "SCHEDULED"}, "job_variables": variables}
    assert refused(up, f"{api}/{one['id']}/create_flow_run", planned) == 422
    new = {"name": "new", "flow_id": one["flow_id"], "work_pool_name": "agepipe", "job_variables": variables}
    assert refused(up, f"{api}/", new) == 422


def test_another_user_of_the_machine_learns_no_password_and_is_refused_without_it(up: Up) -> None:
    word = up.auth.partition(":")[2]
    for auth in ("agepipe:", f"agepipe:{word[:-1]}", "admin:password1234"):
        stranger = dataclasses.replace(up, auth=auth)
        assert refused(stranger, f"{up.prefect}/api/flows/filter", None) == 401
        assert refused(stranger, f"{up.mlflow}/api/2.0/mlflow/experiments/search?max_results=1", None) == 401
        assert refused(stranger, f"{up.mlflow}/", None) == 401
    files = [path for path in up.runtime.workspace.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]
    assert files == [access.file(up.runtime)]
    assert files[0].stat().st_mode & 0o777 == 0o600
    shown = [" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
    assert [line for line in shown if word in line] == []


def test_a_run_from_the_page_is_carried_out(up: Up) -> None:
    said = up.wait(up.run("deploy", {}), "FAILED")
    assert "ModelError: model: 'champion'" in said, "there is no model yet"


def test_both_pages_and_all_flows_are_served_and_a_second_up_says_where(up: Up) -> None:
    for address in (up.prefect, up.mlflow):
        with up.open(f"{address}/") as page:
            assert (page.status, page.headers.get_content_type()) == (200, "text/html")
    second = agepipe(up.runtime.workspace.parent, "up", timeout=300)
    assert second.returncode == 0, second.stderr
    assert up.prefect in second.stdout
    assert up.mlflow in second.stdout
    deployed = {one["name"] for one in up.ask(f"{up.prefect}/api/deployments/filter", {})}
    assert {"weekly", "evaluate", "compare", "release"} <= deployed
    automations = [one["name"] for one in up.ask(f"{up.prefect}/api/automations/filter", {})]
    assert any("runs without a heartbeat" in name for name in automations)


def test_the_form_of_a_run_knows_every_setting_and_the_server_holds_to_its_bounds(up: Up) -> None:
    weekly = up.deployment("weekly")
    form = weekly["parameter_openapi_schema"]
    assert set(form["properties"]) == {"config", "runtime"}
    assert "parent" not in form["definitions"]["Runtime"]["properties"]  # set by flows alone
    learn = form["definitions"]["LearnSettings"]["properties"]
    assert learn["dropout"]["minimum"] == 0.0
    assert learn["dropout"]["description"].startswith("Dropout before")
    assert learn["target"]["enum"] == ["ranges", "ordinal", "years"]
    with pytest.raises(urllib.error.HTTPError) as caught:
        up.run("weekly", {"config": {"learn": {"dropout": 1.5}}})
    with caught.value as answer:
        assert (answer.code, "dropout" in answer.read().decode()) == (409, True)


def test_the_form_that_starts_a_run_asks_for_a_preset_photographs_and_changes(up: Up) -> None:
    form = up.deployment("run")["parameter_openapi_schema"]
    assert list(form["properties"]) == ["preset", "data", "changes", "variant"]
    assert form["properties"]["preset"]["enum"] == list(presets.names())
    with pytest.raises(urllib.error.HTTPError) as caught:
        up.run("run", {"preset": "latop"})
    with caught.value as answer:
        assert answer.code == 409


def test_a_change_that_is_misspelt_in_the_form_is_answered_with_the_nearest_field(up: Up) -> None:
    said = up.wait(up.run("run", {"changes": ["final.epoch=2"]}), "FAILED")
    assert "final.epochs" in said


def test_a_run_that_is_cancelled_in_prefect_leaves_killed_runs(up: Up, drawn: Path) -> None:
    """The worker then signals the whole group of processes."""
    config = {
        "preset": "sample",
        "source": {"data": [str(drawn)]},
        "ingest": {"size": 36},
        "learn": {"size": 32, "network": "shufflenet_v2_x0_5", "batch": 32, "epochs": FOR_EVER},
        "search": {"grid": {"lr": [0.003, 0.01, 0.02]}, "folds": 2},
    }
    run = up.run("weekly", {"config": config, "runtime": {"workers": 2}})
    wait_for("search", up.runtime.workspace)
    up.ask(f"{run}/set_state", {"state": {"type": "CANCELLING"}})
    check_killed(up.runtime, "search", time.monotonic())
    up.wait(run, "CANCELLED")


def test_a_preset_with_changes_is_run_by_the_worker(up: Up, drawn: Path) -> None:
    changes = [
        "ingest.size=36", "learn.size=32", "learn.batch=32", "search.grid={}", "final.epochs=1", "evaluate.draws=200",
    ]  # fmt: skip
    run = up.run("run", {"preset": "sample", "data": [str(drawn)], "changes": changes})
    up.wait(run, "COMPLETED")
    name = up.ask(run)["name"]
    assert name.startswith("run sample")


def test_a_foreign_page_changes_nothing_and_reads_nothing(up: Up, chromium: Browser, tmp_path: Path) -> None:
    ids = prepare(up, tmp_path)
    asked = [one.replace(f"{up.auth}@", "") for one in log_in(chromium, up)]
    assert [one for one in asked if not one.startswith((up.prefect, up.mlflow, "data:", "blob:"))] == []
    before = up.state()
    bundle = make_bundle(tmp_path / "bundle").folder
    with page_served(SharedModel(lambda: FixedModel(bundle, "bundle"), Haar())) as page, served(Foreign) as port:
        address = f"http://{page}"
        for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}", f"http://{EVIL}:{port}"):
            chromium.driver.get(origin)
            chromium.driver.set_script_timeout(120)
            said = chromium.driver.execute_async_script(TRIES, up.prefect, up.mlflow, address, ids)
            assert len(said) > 40
            assert [one for one in said if one[2] in ("basic", "cors") or one[2].startswith("message")] == [], origin
            assert up.state() == before, origin
        for name in (up.prefect, up.mlflow, address):  # as if its name had been pointed here after it was loaded
            chromium.driver.get(name.replace("127.0.0.1", EVIL))
            assert shows(chromium, "is no name of this machine")
    assert not Path(ids["mark"]).exists()
    chromium.driver.get(f"{up.prefect}/deployments")
    assert shows(chromium, "weekly")
    assert up.state() == before
