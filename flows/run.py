"""The pipeline as `agepipe run` starts it, for Prefect's page: a preset, photographs, and the settings to change."""

from prefect import flow

from agepipe.config import presets
from agepipe.config.presets import PresetName
from agepipe.config.runtime import Runtime
from agepipe.training.check import check
from flows import refuse
from flows.beginning import begin
from flows.pipeline import pipeline
from flows.result import PipelineResult


@flow(name="run", flow_run_name="run {preset} {variant}", on_running=[begin])
def run(
    preset: PresetName = "sample", data: tuple[str, ...] = (), changes: tuple[str, ...] = (), variant: str = ""
) -> PipelineResult:
    """Photographs in, an evaluated and registered model out.

    Args:
        preset: The recipe. sample needs no photographs; laptop is for two cores, gpu for one GPU.
        data: Folders or archives of UTKFace photographs, as the worker sees them; the preset's own if empty.
        changes: Settings to change, each as FIELD=VALUE, such as final.epochs=20.
        variant: A variant of the preset, such as scratch of laptop.
    """
    given = {"source.data": data} if data else {}
    config = presets.load(preset, {**presets.parse_overrides(changes), **given}, variant)
    runtime = Runtime()
    check(config, runtime=runtime)
    refuse.run(config, runtime)
    return pipeline(config, runtime)
