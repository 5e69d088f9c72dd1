"""Checks of names and paths before a server is started: they take seconds and leave no failed run behind.

The flows check again themselves, for runs that Prefect starts.
"""

from collections.abc import Sequence

from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config
from agepipe.core.errors import ConfigError, ModelError
from agepipe.data import sources
from agepipe.registry import locked_rows, lookup
from agepipe.reports.comparison import check_different
from agepipe.training import warm_start


def run(config: Config, runtime: Runtime) -> None:
    """Check that the photographs and the initial weights exist.

    Raises:
        SourceError: a path cannot hold photographs, or a Kaggle data set cannot be requested.
        ModelError: the initial weights are those of a version that does not exist.
        ConfigError: `--refresh` names a stage that is not part of a run.
    """
    if "predict" in runtime.refresh:
        raise ConfigError("refresh: 'predict' is no stage of a run; name one of these, or refresh `agepipe predict`.")
    sources.check(config.source.data)
    warm_start.with_files(config, lambda version: lookup.weights_file(version, runtime))


def evaluate(model: str, data: Sequence[str], name: str, runtime: Runtime) -> None:
    """Check that the model and the photographs exist, and that the model has rows to be evaluated on.

    Raises:
        ModelError: the model does not exist, or its locked test rows are not in the workspace.
        SourceError: a path cannot hold photographs.
    """
    found = lookup.resolve(model, runtime, name)
    if data:
        sources.check(data)
    else:
        locked_rows.test_rows(found, name, runtime)


def compare(models: Sequence[str], data: Sequence[str], name: str, anew: bool, runtime: Runtime) -> None:
    """Check that the models differ, that they and the photographs exist, and that the models share test rows.

    Raises:
        ModelError: a model does not exist, or the workspace has no test rows of it.
        ConfigError: there are not two different models.
        SourceError: a path cannot hold photographs.
    """
    found = [lookup.resolve(model, runtime, name) for model in models]
    titles = [lookup.title(text, model, runtime, name) for text, model in zip(models, found, strict=True)]
    check_different(found, titles)
    if data:
        sources.check(data)
    else:
        locked_rows.shared_rows(found, titles, name, anew, runtime)


def release(candidate: str, name: str, runtime: Runtime) -> None:
    """Check that the candidate is registered and that the workspace has its test rows.

    Raises:
        ModelError: one of the two is not the case.
    """
    found = lookup.resolve(candidate, runtime, name)
    if lookup.of_digest(found.digest, name, runtime) is None:
        raise ModelError(
            f"model: {candidate!r} has no version, and only a version can be released; run the pipeline that trains it."
        )
    locked_rows.test_rows(found, name, runtime)
