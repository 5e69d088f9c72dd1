"""The MLflow model of a registered version: takes pictures as base64 text, returns ranges with probabilities.

This file is copied into the model beside the bundle and the modules that it imports. MLflow runs it to load the model
(*models from code*), so nothing is pickled. Its only side effect is the call of `set_model` at its end; no other module
imports it.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.store.artifact.models_artifact_repo import REGISTERED_MODEL_META_FILE_NAME
from mlflow.utils.yaml_utils import read_yaml
from numpy.typing import NDArray

from agepipe.core.errors import ImageError
from agepipe.model.bundle import digest
from agepipe.model.decoding import decide
from agepipe.model.imaging import decode, fit
from agepipe.model.predictor import Predictor

COLUMN = "image"


class ServedModel(PythonModel):
    """Predicts range, probability, age in years, 90 % set and all probabilities of each face."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle in the model."""
        folder = Path(context.artifacts["bundle"])
        self.predictor, self.digest, self.title = Predictor.load(folder), digest(folder), _title(folder.parents[1])

    def predict(  # type: ignore[override]  # MLflow allows it
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Predict pictures, each a photograph file (JPEG, PNG, WebP or BMP) of one face as base64 text.

        Args:
            model_input: A frame with the column `image`; called directly, also a list of texts or of
                `{"image": text}`, or `{"image": text or list of texts}`.
            params: `{"card": True}` adds a description of the model; `agepipe camera --endpoint` requests it.

        Returns:
            One row a picture: `range`, `probability`, `age` (years), `low` and `high` (first and last year of the
            90 % set; `high` is null for an open range, both if nothing was calibrated), `probabilities` (a list in
            class order); if requested also `card` (JSON: ranges in class order and more), `digest` and `title` (name
            and version; empty if MLflow did not load a registered version).

        Raises:
            MlflowException: names the row that is not a picture, and why (HTTP status 400).
        """
        card = self.predictor.card
        size = card.size
        pictures = [_picture(text, row, size) for row, text in enumerate(_texts(model_input))]
        images = np.stack(pictures) if pictures else np.empty((0, size, size, 3), dtype=np.uint8)
        found = self.predictor.predict(images)
        best, spans = decide(found.probabilities, card.decoding), card.spans(found.probabilities)
        answers = pd.DataFrame(
            {
                "range": [card.ranges.names[label] for label in best],
                "probability": found.probabilities[np.arange(len(best)), best].astype(float),
                "age": found.years.astype(float),
                # as objects, because pandas would convert 27 to 27.0, and None to NaN, which is not null in JSON
                "low": pd.Series([low for low, _ in spans], dtype=object),
                "high": pd.Series([high for _, high in spans], dtype=object),
                "probabilities": [[float(value) for value in row] for row in found.probabilities],
            }
        )
        if not (params or {}).get("card"):
            return answers
        return answers.assign(
            card=card.model_dump_json(exclude={"config", "versions"}), digest=self.digest, title=self.title
        )


def _title(model: Path) -> str:
    """Name and version, which MLflow writes beside a model that it loads from its registry."""
    if not (model / REGISTERED_MODEL_META_FILE_NAME).is_file():
        return ""
    known = read_yaml(str(model), REGISTERED_MODEL_META_FILE_NAME)
    return f"{known['model_name']} version {known['model_version']}"


def _texts(given: pd.DataFrame | Mapping[str, Any] | Sequence[Any]) -> Iterator[Any]:
    if isinstance(given, pd.DataFrame):
        if COLUMN not in given.columns:
            raise _refused(f"the columns are {list(given.columns)}, but '{COLUMN}' is needed.")
        yield from given[COLUMN]
    elif isinstance(given, Mapping):
        value = given.get(COLUMN)
        yield from value if isinstance(value, list | tuple | np.ndarray) else [value]
    else:
        for item in given:
            yield from _texts(item) if isinstance(item, Mapping) else [item]


def _picture(text: object, row: int, size: int) -> NDArray[np.uint8]:
    """The photograph as input of the network, uint8 `(size, size, 3)`."""
    if not isinstance(text, str):
        raise _refused(f"row {row} is {type(text).__name__}, but a photograph file as base64 text is needed.")
    body = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return fit(decode(base64.b64decode(body, validate=True)), size)
    except binascii.Error as error:
        raise _refused(f"row {row} is not base64 ({error}); encode the bytes of a JPEG or PNG file.") from error
    except ImageError as error:
        raise _refused(f"row {row} cannot be used: {error}") from error


def _refused(why: str) -> MlflowException:
    return MlflowException(f"{COLUMN}: {why}", error_code=INVALID_PARAMETER_VALUE)


set_model(ServedModel())
