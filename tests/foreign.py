"""A page of a stranger that tries to reach the servers of this machine, and where it lies."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from browser import Browser
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

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
