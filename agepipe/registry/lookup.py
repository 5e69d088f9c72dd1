"""Find registered models by alias, version, run or folder, and the rows that they were trained and evaluated on."""

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from agepipe.config.runtime import Runtime
from agepipe.core.artifacts import whole
from agepipe.core.errors import ModelError
from agepipe.data.records import Partition
from agepipe.model import bundle
from agepipe.model.records import Model
from agepipe.registry import store, tables, tracking
from agepipe.registry import versions as tags
from agepipe.registry.versions import CHAMPION, Version


def versions(name: str, runtime: Runtime) -> list[Version]:
    """All versions of a model, newest first; a local store is only read, and never created.

    Raises:
        TrackingError: the store cannot be read, or the server does not answer.
    """
    name, path = named(name, runtime), store.database(runtime)
    if path is not None:
        return tables.versions(path, name)
    client = tracking.answering(runtime)
    registered = client.search_registered_models(f"name = '{name}'")
    if not registered:
        return []
    aliases = registered[0].aliases  # a search returns versions without aliases
    known = [
        Version(
            name=name, number=int(item.version), run=item.run_id, source=item.source, tags=item.tags,
            aliases=tuple(alias for alias, number in aliases.items() if int(number) == int(item.version)),
        )
        for item in client.search_model_versions(f"name = '{name}'", max_results=10_000)
    ]  # fmt: skip
    return sorted(known, key=lambda version: -version.number)


def champion(name: str, runtime: Runtime) -> Version | None:
    """The champion; None if there is none."""
    return next((version for version in versions(name, runtime) if CHAMPION in version.aliases), None)


def partition(name: str, runtime: Runtime) -> Partition | None:
    """The split of the champion's rows; None if there is no champion, or it was registered without a split."""
    found = champion(name, runtime)
    return None if found is None else _partition(found, runtime)


def partition_of(model: Model, name: str, runtime: Runtime) -> Partition | None:
    """The split of a registered model's rows; None if it is not registered, or was registered without a split."""
    found = of_digest(model.digest, name, runtime)
    return None if found is None else _partition(found, runtime)


def _partition(found: Version, runtime: Runtime) -> Partition | None:
    if tags.PARTITION not in found.tags or found.run is None:
        return None
    path = store.database(runtime)
    run = tables.run(path, found.run) if path is not None else None
    address = run.artifacts if run is not None else tracking.client(runtime).get_run(found.run).info.artifact_uri
    folder = _local(
        f"{address}/partition", runtime.workspace / "splits" / f"fetched-{found.tags[tags.PARTITION][:10]}", runtime
    )
    kept = Partition.model_validate_json((folder / "partition.json").read_bytes())
    if kept.members.is_absolute():  # WORKSPACE/splits/NAME/members.parquet, from an earlier version of agepipe
        kept = kept.relative_to(kept.members.parent.parent.parent)
    copy = folder / kept.members.name
    here = kept.resolved_in(runtime.workspace)
    return here if here.members.exists() else here.model_copy(update={"members": copy})


def resolve(reference: str, runtime: Runtime, name: str = "") -> Model:
    """The model that a user names; its folder is on this machine.

    Args:
        reference: An alias, a version, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, a run id, or a bundle's folder.
        runtime: The store, and the workspace into which the bundle of a server's version is downloaded.
        name: The registered model; empty takes `agepipe`, or the only one there is.

    Raises:
        ModelError: there is no such model; the message lists the existing versions.
    """
    if not reference:
        raise ModelError("model: it is empty; name an alias, a version, a run, or the folder of a bundle.")
    folder = Path(reference).expanduser().absolute()
    if (folder / bundle.CARD).is_file():
        return _in_folder(folder)
    wanted = tags.parse(reference, name)
    there = versions(wanted.name, runtime)
    found = next((version for version in there if wanted.names(version)), None)
    if found is not None:
        return model_of(found, runtime)
    if wanted.kind == "run" and (model := _of_run(wanted.value, runtime)) is not None:
        return model
    raise unknown(reference, wanted.name, there, runtime)


def weights_file(reference: str, runtime: Runtime) -> Path:
    """The state dict of a registered version, from which another network can start; the lineage is in its folder.

    Raises:
        ModelError: there is no such version, or it was registered without a state dict.
    """
    path = resolve(reference, runtime).folder / bundle.WEIGHTS
    if not path.is_file():
        raise ModelError(
            f"learn.weights: {reference} was registered without its {bundle.WEIGHTS}; name another version, or the "
            "file of a bundle."
        )
    return path


def _of_run(run_id: str, runtime: Runtime) -> Model | None:
    """The model that a pipeline's run registered or found in the registry, or the bundle in the artifacts of a run."""
    run = _run(run_id, runtime)
    if run is None:
        return None
    if registered := run.tags.get(tags.REGISTERED):  # also the run of a pipeline whose model was registered before
        name, _, number = registered.rpartition("/")
        return model_of(numbered(int(number), name, runtime), runtime)
    if not _has_bundle(run_id, run, runtime):
        return None
    folder = _local(f"{run.artifacts}/bundle", runtime.workspace / "models" / f"run-{run_id[:10]}", runtime)
    return _in_folder(folder).model_copy(update={"run": run_id})


def _run(run_id: str, runtime: Runtime) -> tables.Stored | None:
    """A run of the experiment that is not deleted; None if there is none."""
    path = store.database(runtime)
    if path is not None:
        found = tables.run(path, run_id)
        return found if found and (found.experiment, found.stage) == (runtime.experiment, "active") else None
    client = tracking.answering(runtime)
    experiment = client.get_experiment_by_name(runtime.experiment)
    runs = client.search_runs([experiment.experiment_id], f"attributes.run_id = '{run_id}'") if experiment else []
    return tables.Stored(runs[0].info.artifact_uri, runs[0].data.tags, runtime.experiment, "active") if runs else None


def _has_bundle(run_id: str, run: tables.Stored, runtime: Runtime) -> bool:
    if store.database(runtime) is not None:
        return _folder(run.artifacts, Path()).joinpath("bundle").is_dir()
    return any(item.path == "bundle" for item in tracking.client(runtime).list_artifacts(run_id))


def _in_folder(folder: Path) -> Model:
    return Model(digest=bundle.digest(folder), folder=folder, lineage=bundle.read_card(folder).lineage)


def title(reference: str, model: Model, runtime: Runtime, name: str) -> str:
    """The title of a model: `version 2 (champion)` if it is registered, else the last part of the reference."""
    found = of_digest(model.digest, name, runtime)
    if found is None:
        return Path(reference).name
    return f"version {found.number}" + (f" ({found.aliases[0]})" if found.aliases else "")


def model_of(found: Version, runtime: Runtime) -> Model:
    """The model of a version; its folder is on this machine.

    Raises:
        ModelError: the files are missing, or are not those that were registered.
    """
    target = runtime.workspace / "models" / f"{found.name}-v{found.number}-{found.digest[:10]}"
    folder = _local(f"{found.source}/artifacts/bundle", target, runtime)
    model = _in_folder(folder)
    if found.digest not in ("", model.digest):
        raise ModelError(f"{folder}: its files are not those of version {found.number}; promote another version.")
    recorded = json.loads(found.tags.get(tags.MODEL, "{}"))
    return Model.model_validate({**model.model_dump(), **recorded, "folder": folder, "run": found.run})


def _local(uri: str, target: Path, runtime: Runtime) -> Path:
    """The folder of an artifact: its own if it is local, or in `target` after a download from a server."""
    folder = _folder(uri, target)
    if folder.is_dir():
        return folder
    if urlsplit(uri).scheme in ("", "file"):
        raise ModelError(f"{folder}: there is no such folder any more; restore it, or promote another version.")
    with store.locked(runtime, "fetch"):
        if not folder.is_dir():
            with whole(target) as draft:
                tracking.download(runtime, uri, draft)
    return folder


def _folder(uri: str, target: Path) -> Path:
    """The path of a local artifact, or the path in `target` to which it is downloaded."""
    parts = urlsplit(uri)
    return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else target / Path(parts.path).name


def files(found: Version) -> Path | None:
    """The folder of a version's MLflow model; None if it is on a server."""
    local = urlsplit(found.source).scheme in ("", "file")
    return _folder(found.source, Path()) if local and found.source else None


def of_digest(digest: str, name: str, runtime: Runtime) -> Version | None:
    """The version with this model digest, under any name if none is given; None if it is not registered."""
    for one in (name,) if name else candidates(runtime):
        if found := next((version for version in versions(one, runtime) if version.digest == digest), None):
            return found
    return None


def numbered(number: int, name: str, runtime: Runtime) -> Version:
    """The version with this number.

    Raises:
        ModelError: there is no such version.
    """
    there = versions(name, runtime)
    found = next((version for version in there if version.number == number), None)
    if found is None:
        raise unknown(str(number), name, there, runtime)
    return found


def named(name: str, runtime: Runtime) -> str:
    """The name itself; for an empty one the only registered model of agepipe, else `agepipe`."""
    if name:
        return name
    names = candidates(runtime)
    return names[0] if len(names) == 1 else tags.DEFAULT_NAME


def candidates(runtime: Runtime) -> list[str]:
    """The models that a reference without a name may mean: those that agepipe registered, or all if there are none.

    A registry may contain models of other programs as well.
    """
    known = _names(runtime)
    return [name for name, ours in known.items() if ours] or list(known)


def _names(runtime: Runtime) -> dict[str, bool]:
    """The registered models by name, and whether agepipe has registered a version of each."""
    path = store.database(runtime)
    if path is not None:
        return tables.names(path)
    client = tracking.answering(runtime)
    ours = {item.name for item in client.search_model_versions(max_results=10_000) if tags.DIGEST in item.tags}
    return {model.name: model.name in ours for model in client.search_registered_models(max_results=1000)}


def unknown(reference: str, name: str, there: Sequence[Version], runtime: Runtime) -> ModelError:
    """The error for a reference that names no model: it lists versions, aliases and other registered models.

    Args:
        reference: the reference that the user gave.
        name: the registered model in which it was looked up; may be empty.
        there: the versions of that model.
        runtime: the store.
    """
    name = named(name, runtime)
    others = [one for one in candidates(runtime) if one != name]
    elsewhere = f"; or give --name: the store holds {', '.join(others)} as well" if others else ""
    if not there:
        return ModelError(
            f"model: {reference!r} is not known, because '{name}' has no versions in {runtime.tracking}; check "
            "--tracking or the folder that you are in, or train and register one in minutes with `agepipe run "
            f"sample`{elsewhere}."
        )
    numbers = ", ".join(str(version.number) for version in there[:10])
    aliases = sorted({f"{alias} (version {v.number})" for v in there for alias in v.aliases})
    return ModelError(
        f"model: {reference!r} is not known; '{name}' has the versions {numbers} and the aliases "
        f"{', '.join(aliases) or 'none'} in {runtime.tracking}; a run id or the folder of a bundle can be given as "
        f"well{elsewhere}."
    )
