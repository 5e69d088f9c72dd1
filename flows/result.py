"""What a run of the whole pipeline returns."""

from pydantic import BaseModel, ConfigDict

from agepipe.data.records import Catalogue, DataReport, Partition
from agepipe.evaluation.records import Evaluation
from agepipe.model.records import Model
from agepipe.registry.records import Registered
from agepipe.training.records import Choice


class PipelineResult(BaseModel):
    """What a run of the whole pipeline found and made."""

    model_config = ConfigDict(frozen=True)

    run: str
    """The MLflow run of the pipeline."""
    catalogue: Catalogue
    report: DataReport
    partition: Partition
    choice: Choice
    model: Model
    evaluation: Evaluation
    registered: Registered
