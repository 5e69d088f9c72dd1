"""What answers as `mlflow models serve` does: a stand-in that a test tells how to fail, and the real server."""

import json
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from agepipe.model.imaging import decode, fit
from agepipe.model.predictor import Predictor


class Server:
    """Answers as a test tells it to; by default as the served model does."""

    def __init__(self, bundle: Path, port: int = 0) -> None:
        self.predictor, self.digest, self.asked, self.title = Predictor.load(bundle), "a" * 64, 0, ""
        self.answer: Callable[[int], tuple[int, bytes] | None] = lambda number: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked += 1
                status, said = outer.answer(outer.asked) or (200, outer.right(body))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *words: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def right(self, body: dict[str, list[dict[str, str]]]) -> bytes:
        size = self.predictor.card.size
        images = np.stack([fit(decode(b64decode(row["image"])), size) for row in body["dataframe_records"]])
        found = self.predictor.predict(images)
        card = {"card": self.predictor.card.model_dump_json(), "digest": self.digest, "title": self.title}
        more = card if body["params"] else {}
        rows = zip(found.probabilities.tolist(), found.years.tolist(), strict=True)
        return json.dumps({"predictions": [{"probabilities": p, "age": y, **more} for p, y in rows]}).encode()


@contextmanager
def standing_in(bundle: Path, port: int = 0) -> Iterator[Server]:
    """A stand-in until the block ends; afterwards nothing answers at its address."""
    running = Server(bundle, port)
    thread = threading.Thread(target=running.http.serve_forever, args=[0.02])
    thread.start()
    try:
        yield running
    finally:
        running.http.shutdown()
        running.http.server_close()
        thread.join()
