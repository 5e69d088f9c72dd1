"""Client of `mlflow models serve` of a registered version, over HTTP.

Chips are sent as PNG, which is lossless, so the predictions are those of the bundle. The card of the model (ranges,
sizes, decoding) is requested once at the start.
"""

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any, Self
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from agepipe.core.errors import ConfigError, ServiceError
from agepipe.model.bundle import Card
from agepipe.model.predictor import Prediction

PATH = "/invocations"
TIMEOUT = 5.0
"""Timeout of a request, s."""
PATIENCE = 10.0
"""Time for which failed requests are repeated, s."""
PAUSE = 0.5
"""Time between two attempts, s."""
CHECK_EVERY = 5.0
"""Time after which the digest of the model is checked again, s; the server may have been restarted with another one."""
REMEDY = "start `mlflow models serve -m models:/NAME@champion --env-manager local`, or leave --endpoint out."


class _BrokenError(Exception):
    """A request failed, but may succeed if it is repeated."""


class Endpoint:
    """The model of a server, a predictor and a `agepipe.serving.camera.ModelSource` at once."""

    def __init__(self, url: str, patience: float | None = None) -> None:
        """Request the card of the server's model.

        Args:
            url: HTTP URL of the server.
            patience: time for which failed predictions are repeated, s; None takes `PATIENCE`.

        Raises:
            ConfigError: the URL is not one of HTTP.
            ServiceError: the server does not respond, or does not serve a model of agepipe.
        """
        self.url, self.breaks = address(url), 0
        self._patience = PATIENCE if patience is None else patience
        try:
            self.card, self.digest, version = self._described()
        except _BrokenError as error:
            raise self._no_response(error) from error
        self._checked = time.monotonic()
        self.title = f"{version or self.digest[:10]} at {urlsplit(url).netloc}"

    def predict(self, images: NDArray[np.uint8]) -> Prediction:
        """Predict chips, uint8 RGB `(n, size, size, 3)`; failed requests are repeated for some time.

        Raises:
            ServiceError: the server does not respond, rejects the request, or serves another model now.
        """
        if not len(images):
            return Prediction(np.empty((0, len(self.card.ranges)), np.float32), np.empty(0, np.float32))
        limit, broken = time.monotonic() + self._patience, False
        while True:
            try:
                if broken or time.monotonic() - self._checked > CHECK_EVERY:
                    self._check_same()
                return self._parse(self._request(images), len(images))
            except _BrokenError as error:
                self.breaks, broken = self.breaks + (not broken), True
                if time.monotonic() >= limit:
                    raise self._no_response(error) from error
                time.sleep(PAUSE)

    @property
    def predictor(self) -> Self:
        """The endpoint itself."""
        return self

    def update(self) -> bool:
        """Return False: `predict` refuses another model."""
        return False

    def notes(self) -> list[str]:
        """The number of interruptions."""
        return [f"{self.url} did not answer {self.breaks} times and was asked again."] if self.breaks else []

    def _check_same(self) -> None:
        if self._described()[1] != self.digest:
            raise ServiceError(f"--endpoint: {self.url} serves another model now; start the camera again.")
        self._checked = time.monotonic()

    def _described(self) -> tuple[Card, str, str]:
        """Card, digest, and title of the model, empty if the server does not know it."""
        (row,) = self._request(np.zeros((1, 8, 8, 3), np.uint8), {"card": True})
        try:
            return Card.model_validate_json(row["card"]), str(row["digest"]), str(row.get("title", ""))
        except (KeyError, TypeError, ValidationError) as error:
            raise self._wrong_response(
                "no card of its model, as one that is registered by this version gives"
            ) from error

    def _parse(self, rows: Sequence[Any], count: int) -> Prediction:
        try:
            probabilities = np.array([row["probabilities"] for row in rows], dtype=np.float32)
            years = np.array([row["age"] for row in rows], dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise self._wrong_response(f"rows without 'probabilities' and 'age' ({error!r})") from error
        if probabilities.shape != (count, len(self.card.ranges)) or not np.isfinite(probabilities).all():
            raise self._wrong_response(f"probabilities of shape {probabilities.shape} for {count} pictures")
        return Prediction(probabilities, years)

    def _request(self, images: NDArray[np.uint8], params: dict[str, Any] | None = None) -> list[Any]:
        """Send pictures; returns the list of predictions, a dictionary for each picture."""
        body = {"dataframe_records": [{"image": _base64_png(image)} for image in images], "params": params or {}}
        response = self._post(json.dumps(body).encode())
        try:
            rows = json.loads(response)["predictions"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._wrong_response(repr(response[:60])) from error
        if not isinstance(rows, list) or len(rows) != len(images):
            raise self._wrong_response(f"no list of {len(images)} predictions")
        return rows

    def _post(self, body: bytes) -> bytes:
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            with error:
                message = " ".join(error.read(2000).decode(errors="replace").split())
            if error.code >= 500:
                raise _BrokenError(f"status {error.code}: {message[:200]}") from error
            raise ServiceError(
                f"--endpoint: {self.url} refuses (status {error.code}: {message[:200]}); {REMEDY}"
            ) from error
        except (OSError, ValueError, HTTPException) as error:
            raise _BrokenError(str(error)) from error

    def _no_response(self, why: Exception) -> ServiceError:
        return ServiceError(f"--endpoint: {self.url} does not answer ({' '.join(str(why).split())}); {REMEDY}")

    def _wrong_response(self, what: str) -> ServiceError:
        return ServiceError(f"--endpoint: {self.url} answers with {what}, so it serves no model of agepipe; {REMEDY}")


def address(url: str) -> str:
    """URL of a server's predictions, from that of the server.

    Raises:
        ConfigError: the URL is not one of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--endpoint: {url!r} is not an HTTP URL; write http://HOST:PORT of `mlflow models serve`.")
    return url if parts.path.endswith(PATH) else url.rstrip("/") + PATH


def _base64_png(image: NDArray[np.uint8]) -> str:
    # the lowest compression level, because the chip is small and compression delays the frame
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return base64.b64encode(data.tobytes()).decode()
