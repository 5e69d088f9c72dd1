"""The result of a pipeline run."""

from pydantic import BaseModel, ConfigDict

from agepipe.data.records import Catalogue, DataReport, Partition
from agepipe.evaluation.records import Evaluation
from agepipe.model.records import Model
from agepipe.registry.records import Registered
from agepipe.training.records import Choice


class PipelineResult(BaseModel):
    """The records of all stages of a pipeline run."""

    model_config = ConfigDict(frozen=True)

    run: str
    """Id of the MLflow run of the pipeline."""
    catalogue: Catalogue
    report: DataReport
    partition: Partition
    choice: Choice
    model: Model
    evaluation: Evaluation
    registered: Registered
