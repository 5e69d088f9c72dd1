"""The servers of `agepipe up` and the page of `agepipe web`, asked by a foreign page in a real browser.

The browser knows the passwords: its user has logged in to both pages before the foreign one is opened.
"""

import base64
import dataclasses
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from browser import Browser, started
from bundles import make_bundle
from pages import served as page_served
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from agepipe.config.runtime import Where
from agepipe.core.ports import bound
from agepipe.serving.detect.haar import Haar
from agepipe.serving.model_source import Fixed
from agepipe.serving.web.session import Shared
from flows import access

ROOT = Path(__file__).resolve().parents[2]
AGEPIPE = Path(sys.executable).with_name("agepipe")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EVIL = "evil.test"
"""A name that the browser finds at this machine, as that of a stranger who has it point here."""
REBOUND = f"--host-resolver-rules=MAP {EVIL} 127.0.0.1"

TRIES = """
const [prefect, mlflow, web, ids, done] = arguments;
const said = [];
const json = {"Content-Type": "application/json"}, plain = {"Content-Type": "text/plain"};
async function ask(url, method, body, headers, mode) {
  try {
    const sent = {method, headers, mode, credentials: "include", body: body && JSON.stringify(body)};
    const answer = await fetch(url, sent);
    said.push([url, mode, answer.type, answer.status, (await answer.text()).slice(0, 60)]);
  } catch (error) { said.push([url, mode, "error", 0, String(error)]); }
}
function dial(url, first) {
  return new Promise(end => {
    const socket = new WebSocket(url, first ? "prefect" : []);
    const told = what => { said.push([url, "ws", what, 0, ""]); end(); };
    socket.onopen = () => { if (first) socket.send(first); };
    socket.onmessage = event => told("message " + String(event.data).slice(0, 60));
    socket.onerror = () => told("error"); socket.onclose = () => told("closed"); setTimeout(() => told("silent"), 4000);
  });
}
(async () => {
  const run = {name: "planted", state: {type: "SCHEDULED"}, job_variables: {command: "touch " + ids.mark}};
  for (const [mode, headers] of [["cors", json], ["no-cors", plain], ["no-cors", json]]) {
    await ask(prefect + "/api/deployments/" + ids.deployment + "/create_flow_run", "POST", run, headers, mode);
    await ask(prefect + "/api/deployments/", "POST", {name: "planted", flow_id: ids.flow,
      entrypoint: "planted.py:flow", work_pool_name: "agepipe", job_variables: run.job_variables}, headers, mode);
    await ask(prefect + "/api/flows/", "POST", {name: "planted"}, headers, mode);
    await ask(prefect + "/api/csrf-token?client=planted", "GET", null, {}, mode);
    await ask(mlflow + "/api/2.0/mlflow/runs/create", "POST", {experiment_id: "1", run_name: "planted"}, headers, mode);
    await ask(mlflow + "/ajax-api/2.0/mlflow/runs/create", "POST", {experiment_id: "1"}, headers, mode);
    await ask(mlflow + "/api/2.0/mlflow/experiments/delete", "POST", {experiment_id: "1"}, headers, mode);
    await ask(mlflow + "/api/2.0/mlflow/registered-models/alias", "POST",
      {name: "mine", alias: "champion", version: "1"}, headers, mode);
    await ask(mlflow + "/api/2.0/mlflow/experiments/search?max_results=5", "GET", null, {}, mode);
    await ask(mlflow + "/get-artifact?path=x&run_uuid=" + ids.run, "GET", null, {}, mode);
    await ask(web + "/status", "GET", null, {}, mode);
    await ask(web + "/faces", "POST", {}, headers, mode);
  }
  const auth = JSON.stringify({type: "auth", token: null});
  for (const path of ["/api/events/in", "/api/events/out"])
    for (const first of [null, auth]) await dial(prefect.replace("http", "ws") + path, first);
  await dial(web.replace("http", "ws") + "/faces", null);
  const form = document.createElement("form");
  form.method = "POST"; form.enctype = "text/plain"; form.target = "kept";
  form.action = mlflow + "/api/2.0/mlflow/experiments/delete";
  const frame = document.createElement("iframe");
  frame.name = "kept";
  const field = document.createElement("input");
  field.name = '{"experiment_id": "1", "x": "'; field.value = '"}';
  form.append(field); document.body.append(frame, form); form.submit();
  await new Promise(end => setTimeout(end, 2000));
  done(said);
})();
"""


@dataclass(frozen=True)
class Up:
    """What runs, and what is asked of it by its owner."""

    where: Where
    prefect: str
    mlflow: str
    auth: str

    def ask(self, url: str, body: object = None, method: str | None = None) -> Any:
        """A request with the password, as a program sends it."""
        request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), method=method)
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", "Basic " + base64.b64encode(self.auth.encode()).decode())
        for name, value in self._csrf() if url.startswith(self.prefect) and body is not None else ():
            request.add_header(name, value)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

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


def agepipe(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [AGEPIPE, *words], cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False
    )


def free_port() -> int:
    with bound("", "127.0.0.1", 0) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    shutil.copy(ROOT / "prefect.yaml", folder)
    ports = [free_port(), free_port()]
    where = Where(workspace=folder / "workspace", tracking=f"sqlite:///{folder}/mlruns/mlflow.db")
    try:
        done = agepipe(folder, "up", "--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1]))
        assert done.returncode == 0, done.stderr
        auth = access.kept(where)
        assert f"Password {auth}" in done.stdout
        yield Up(where, f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", auth)
    finally:
        agepipe(folder, "down")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with started(REBOUND) as browser:
        yield browser


@contextmanager
def served(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Foreign(http.server.BaseHTTPRequestHandler):
    """A page with nothing on it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>foreign</title><body>")

    def log_message(self, *words: object) -> None:
        pass


def shows(browser: Browser, text: str) -> bool:
    def there(driver: Any) -> bool:
        return text in driver.find_element(By.TAG_NAME, "body").text

    return bool(WebDriverWait(browser.driver, 60, ignored_exceptions=[Exception]).until(there))


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
    (deployment,) = [one for one in up.ask(f"{up.prefect}/api/deployments/filter", {}) if one["name"] == "weekly"]
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
    (one,) = [one for one in up.ask(f"{api}/filter", {}) if one["name"] == "weekly"]
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
    files = [path for path in up.where.workspace.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]
    assert files == [access.file(up.where)]
    assert files[0].stat().st_mode & 0o777 == 0o600
    shown = [" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
    assert [line for line in shown if word in line] == []


def test_a_run_from_the_page_is_carried_out(up: Up) -> None:
    (one,) = [one for one in up.ask(f"{up.prefect}/api/deployments/filter", {}) if one["name"] == "deploy"]
    run = up.ask(f"{up.prefect}/api/deployments/{one['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    limit = time.monotonic() + 240
    while (state := up.ask(f"{up.prefect}/api/flow_runs/{run['id']}")["state"])["type"] != "FAILED":
        assert time.monotonic() < limit, state
        time.sleep(2)
    assert "ModelError: model: 'champion'" in state["message"], "there is no model yet"


def test_a_foreign_page_changes_nothing_and_reads_nothing(up: Up, chromium: Browser, tmp_path: Path) -> None:
    ids = prepare(up, tmp_path)
    asked = [one.replace(f"{up.auth}@", "") for one in log_in(chromium, up)]
    assert [one for one in asked if not one.startswith((up.prefect, up.mlflow, "data:", "blob:"))] == []
    before = up.state()
    bundle = make_bundle(tmp_path / "bundle").folder
    with page_served(Shared(lambda: Fixed(bundle, "bundle"), Haar())) as page, served(Foreign) as port:
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
