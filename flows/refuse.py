"""Names that lead nowhere, refused before a server is started: in seconds, and without a failed run left behind.

The flows look again themselves, for those that Prefect starts.
"""

from collections.abc import Sequence

from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config
from agepipe.core.errors import ModelError
from agepipe.data import sources
from agepipe.registry import locked_rows, lookup
from agepipe.reports.comparison import check_different
from agepipe.training import warm_start


def run(config: Config, runtime: Runtime) -> None:
    """Refuse photographs or first weights that are not there.

    Raises:
        SourceError: a path cannot hold photographs, or a data set of Kaggle cannot be asked for.
        ModelError: the weights to start from are of no version.
    """
    sources.check(config.source.data)
    warm_start.with_files(config, lambda version: lookup.weights_file(version, runtime))


def evaluate(model: str, data: Sequence[str], name: str, runtime: Runtime) -> None:
    """Refuse a model or photographs that are not there, or a model without rows to be judged on.

    Raises:
        ModelError: there is no such model, or its locked test rows are not here.
        SourceError: a path cannot hold photographs.
    """
    found = lookup.resolve(model, runtime, name)
    if data:
        sources.check(data)
    else:
        locked_rows.test_rows(found, name, runtime)


def compare(models: Sequence[str], data: Sequence[str], name: str, anew: bool, runtime: Runtime) -> None:
    """Refuse models or photographs that are not there, the same model twice, or models without rows in common.

    Raises:
        ModelError: there is no such model, or no rows are here.
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
    """Refuse a candidate that is not registered, or whose rows are not here.

    Raises:
        ModelError: says which.
    """
    found = lookup.resolve(candidate, runtime, name)
    if lookup.of_digest(found.digest, name, runtime) is None:
        raise ModelError(
            f"model: {candidate!r} has no version, and only a version can be released; run the pipeline that trains it."
        )
    locked_rows.test_rows(found, name, runtime)
