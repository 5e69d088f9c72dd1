"""A model that answers in another process: `mlflow models serve` of a registered version, asked over HTTP.

The chips travel as PNG, which loses nothing, so the answers are those of the bundle itself. What the model is (ranges,
sizes, decoding) the server is asked once; without it, a camera could not name a range.
"""

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from agepipe.core.errors import ConfigError, ServiceError
from agepipe.model.bundle import Card
from agepipe.model.predictor import Prediction

PATH = "/invocations"
SECONDS = 5.0
"""How long the server may be silent."""
PATIENCE = 10.0
"""For how long a server that is gone or fails is asked again, s, before the camera ends."""
PAUSE = 0.5
"""Seconds between two tries."""
CHECK = 5.0
"""Seconds after which the server is asked again what its model is: it may have been started anew between two frames."""
REMEDY = "start `mlflow models serve -m models:/NAME@champion --env-manager local`, or leave --endpoint out."


class _BrokenError(Exception):
    """The server did not answer, but may do so again."""


class Endpoint:
    """The model of a server; `card` and `predict` are as those of a `Predictor`."""

    def __init__(self, url: str, patience: float | None = None) -> None:
        """Ask the server what its model is.

        Args:
            url: its address.
            patience: for how long it is asked again where it is gone or fails, s; by default `PATIENCE`.

        Raises:
            ConfigError: the address is none of HTTP.
            ServiceError: nothing answers there, or not as a registered model of agepipe does.
        """
        self.url, self.breaks = address(url), 0
        self._patience = PATIENCE if patience is None else patience
        try:
            self.card, self.digest, version = self._described()
        except _BrokenError as error:
            raise self._gone(error) from error
        self._checked = time.monotonic()
        self.title = f"{version or self.digest[:10]} at {urlsplit(url).netloc}"

    def predict(self, images: NDArray[np.uint8]) -> Prediction:
        """What the server says of pictures, uint8 RGB `(n, size, size, 3)`; one that is gone for a moment is awaited.

        Raises:
            ServiceError: it is gone for good, refuses the pictures, or has come back with another model.
        """
        if not len(images):
            return Prediction(np.empty((0, len(self.card.ranges)), np.float32), np.empty(0, np.float32))
        limit, broken = time.monotonic() + self._patience, False
        while True:
            try:
                if broken or time.monotonic() - self._checked > CHECK:
                    self._check_same()
                return self._read(self._ask(images), len(images))
            except _BrokenError as error:
                self.breaks, broken = self.breaks + (not broken), True
                if time.monotonic() >= limit:
                    raise self._gone(error) from error
                time.sleep(PAUSE)

    def _check_same(self) -> None:
        if self._described()[1] != self.digest:
            raise ServiceError(f"--endpoint: {self.url} has come back with another model; start the camera again.")
        self._checked = time.monotonic()

    def _described(self) -> tuple[Card, str, str]:
        """Card, digest, and name and version where the server knows them."""
        (row,) = self._ask(np.zeros((1, 8, 8, 3), np.uint8), {"card": True})
        try:
            return Card.model_validate_json(row["card"]), str(row["digest"]), str(row.get("title", ""))
        except (KeyError, TypeError, ValidationError) as error:
            raise self._foreign("no card of its model, as one that is registered by this version gives") from error

    def _read(self, rows: Sequence[Any], count: int) -> Prediction:
        try:
            probabilities = np.array([row["probabilities"] for row in rows], dtype=np.float32)
            years = np.array([row["age"] for row in rows], dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise self._foreign(f"rows without 'probabilities' and 'age' ({error!r})") from error
        if probabilities.shape != (count, len(self.card.ranges)) or not np.isfinite(probabilities).all():
            raise self._foreign(f"probabilities of shape {probabilities.shape} for {count} pictures")
        return Prediction(probabilities, years)

    def _ask(self, images: NDArray[np.uint8], params: dict[str, Any] | None = None) -> list[Any]:
        """The rows of the answer, a dictionary for each picture."""
        body = {"dataframe_records": [{"image": _text(image)} for image in images], "params": params or {}}
        said = self._post(json.dumps(body).encode())
        try:
            rows = json.loads(said)["predictions"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._foreign(repr(said[:60])) from error
        if not isinstance(rows, list) or len(rows) != len(images):
            raise self._foreign(f"no list of {len(images)} predictions")
        return rows

    def _post(self, body: bytes) -> bytes:
        asked = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=SECONDS) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                said = " ".join(error.read(2000).decode(errors="replace").split())
            if error.code >= 500:
                raise _BrokenError(f"status {error.code}: {said[:200]}") from error
            raise ServiceError(
                f"--endpoint: {self.url} refuses (status {error.code}: {said[:200]}); {REMEDY}"
            ) from error
        except (OSError, ValueError, HTTPException) as error:
            raise _BrokenError(str(error)) from error

    def _gone(self, why: Exception) -> ServiceError:
        return ServiceError(f"--endpoint: {self.url} does not answer ({' '.join(str(why).split())}); {REMEDY}")

    def _foreign(self, what: str) -> ServiceError:
        return ServiceError(f"--endpoint: {self.url} answers with {what}, so it serves no model of agepipe; {REMEDY}")


def address(url: str) -> str:
    """Where a server is asked.

    Raises:
        ConfigError: the address is none of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--endpoint: {url!r} is no address; write http://HOST:PORT of `mlflow models serve`.")
    return url if parts.path.endswith(PATH) else url.rstrip("/") + PATH


def _text(image: NDArray[np.uint8]) -> str:
    # compressed least: the chip is small, and the time is the camera's
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return base64.b64encode(data.tobytes()).decode()
