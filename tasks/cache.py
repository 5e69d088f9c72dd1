"""The cache of stage results in the workspace.

The key of a result consists of the name and version of its stage, the digests of its input records, and its settings,
but not of the `Runtime`. So a second run computes nothing, in any process, and a changed setting recomputes its stage
and those that follow. The manifest in a result's folder holds its record, with paths relative to the workspace, so that
a copied or moved workspace never reads or removes files of another. If the workspace has a bucket, a result that is
only there is fetched, and a new one is copied there before its record is returned. This module does not import Prefect,
which takes seconds.
"""

import inspect
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_type_hints

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from agepipe.config.runtime import Runtime, StageName
from agepipe.core.artifacts import progress_of, read_manifest, remove, turn, unfinished, whole, write_manifest
from agepipe.core.record import Record, digest_of

P = ParamSpec("P")
R = TypeVar("R", bound=Record)


def cache_key(name: str, version: int, arguments: Mapping[str, Any]) -> str:
    """The key of a stage's result, from all arguments but the `Runtime`."""
    what = sorted((key, value) for key, value in arguments.items() if not isinstance(value, Runtime))
    return f"{name}-{digest_of(name, version, *(part for pair in what for part in pair))}"


class Cached(Generic[P, R]):
    """A function that fills a folder, its first argument, and returns a record; finished folders are reused."""

    def __init__(
        self, body: Callable[Concatenate[Path, P], R], name: StageName, kind: str, version: int, resumes: bool,
        not_in_key: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        own = inspect.signature(body)
        self.signature = own.replace(parameters=list(own.parameters.values())[1:])
        self.body, self.name, self.version = body, name, version
        self.not_in_key = not_in_key
        self._kind, self._resumes = kind, resumes
        self._record: type[R] = get_type_hints(body)["return"]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The record of the finished folder, or of one that is filled now; concurrent calls for one result wait.

        Raises:
            DataError: an unusable folder lies outside the workspace.
            StorageError: the bucket of the workspace cannot be used; a result that is finished is kept.
        """
        arguments = self.signature.bind(*args, **kwargs).arguments
        folder, runtime = self.folder(arguments), runtime_of(arguments.values())
        workspace = runtime.workspace
        with turn(folder):
            if (found := self._found(folder, runtime)) is not None:
                # left if the process was killed after the rename
                shutil.rmtree(progress_of(folder), ignore_errors=True)
                return found
            if folder.exists():  # what the bucket has is not usable either
                runtime.mirror.remove(folder)
            remove(folder, workspace)
            with unfinished(folder) if self._resumes else whole(folder) as draft:
                record = self.body(draft, *args, **kwargs).moved(draft, folder)
                result = record.relative_to(workspace).model_dump(mode="json")
                write_manifest(draft, self.name, *_described(self._in_key(arguments)), result)
            if runtime.mirror.settle(folder):  # another machine has finished it in the meantime
                record = self._found(folder, runtime) or record
        return record

    def key(self, arguments: Mapping[str, Any]) -> str:
        """The key of the result for these arguments, by name."""
        return cache_key(self.name, self.version, self._in_key(arguments))

    def finished(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """The record of the finished folder; None if there is none."""
        arguments = self.signature.bind(*args, **kwargs).arguments
        return self._found(self.folder(arguments), runtime_of(arguments.values()))

    def _in_key(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that are part of the key."""
        return {name: value for name, value in arguments.items() if name not in self.not_in_key}

    def folder(self, arguments: Mapping[str, Any]) -> Path:
        """The folder of a result, named after the data and the first ten digits of its key."""
        key = self.key(arguments).rpartition("-")[2]
        names = (getattr(value, "name", "") for value in arguments.values() if isinstance(value, Record))
        name = f"{next(filter(None, names), self.name)}-{key[:10]}"
        return runtime_of(arguments.values()).workspace / self._kind / name

    def _found(self, folder: Path, runtime: Runtime) -> R | None:
        """The record of a finished folder, here or in the bucket; None if there is none or files of it are missing."""
        runtime.mirror.settle(folder)
        manifest = read_manifest(folder)
        try:
            record = None if manifest is None else self._record.model_validate(manifest["result"])
        except ValidationError:
            return None
        if record is None:
            return None
        resolved = record.resolved_in(runtime.workspace)
        runtime.mirror.fetch(resolved)
        return usable(resolved, runtime.workspace)


def _described(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and input digests of a call, as JSON values by name."""
    settings, inputs = {}, {}
    for name, value in arguments.items():
        records = [one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, Record)]
        if records:
            inputs[name] = [one.digest for one in records] if isinstance(value, tuple) else records[0].digest
        elif not isinstance(value, Runtime):
            settings[name] = to_jsonable_python(value)
    return settings, inputs


def usable(record: R, workspace: Path) -> R | None:
    """The record, if all files that it names exist and lie in the workspace; otherwise None."""
    return record if record.lies_in(workspace) and record.intact() else None


def runtime_of(arguments: Iterable[Any]) -> Runtime:
    """The `Runtime` among the arguments."""
    return next(value for value in arguments if isinstance(value, Runtime))


def cached(
    name: StageName, kind: str, *, version: int, resumes: bool = False, not_in_key: tuple[str, ...] = ()
) -> Callable[[Callable[Concatenate[Path, P], R]], Cached[P, R]]:
    """Cache the results of a function of records and settings that fills a folder.

    Args:
        name: name of the stage, as users write it.
        kind: folder in the workspace that holds its results.
        version: raised when what it computes changes.
        resumes: whether the next call continues in the folder of an interrupted one; otherwise that is removed.
        not_in_key: names of arguments that do not change the result.
    """
    return lambda body: Cached(body, name, kind, version, resumes, not_in_key)
