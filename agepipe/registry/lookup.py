"""Finding registered models: by alias, version, run or folder, and on what rows they were trained and judged."""

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from agepipe.config.runtime import Where
from agepipe.core.artifacts import whole
from agepipe.core.errors import ModelError
from agepipe.data.records import Partition
from agepipe.model import bundle
from agepipe.model.records import Model
from agepipe.registry import store, tables, tracking
from agepipe.registry import versions as tags
from agepipe.registry.versions import CHAMPION, Version


def versions(name: str, where: Where) -> list[Version]:
    """All versions of a model as they stand, newest first; a local store is only read, and never made.

    Raises:
        TrackingError: the store cannot be read, or the server does not answer.
    """
    name, path = named(name, where), store.database(where)
    if path is not None:
        return tables.versions(path, name)
    client = tracking.answering(where)
    registered = client.search_registered_models(f"name = '{name}'")
    if not registered:
        return []
    aliases = registered[0].aliases  # those of a version that a search finds are empty
    known = [
        Version(
            name=name, number=int(item.version), run=item.run_id, source=item.source, tags=item.tags,
            aliases=tuple(alias for alias, number in aliases.items() if int(number) == int(item.version)),
        )
        for item in client.search_model_versions(f"name = '{name}'", max_results=10_000)
    ]  # fmt: skip
    return sorted(known, key=lambda version: -version.number)


def champion(name: str, where: Where) -> Version | None:
    """The version that serves; None when there is none yet."""
    return next((version for version in versions(name, where) if CHAMPION in version.aliases), None)


def partition(name: str, where: Where) -> Partition | None:
    """How the champion's rows were split; None when there is no champion, or it was not told."""
    found = champion(name, where)
    return None if found is None else _partition(found, where)


def partition_of(model: Model, name: str, where: Where) -> Partition | None:
    """How a registered model's rows were split; None when it is not registered, or was not told."""
    found = of_digest(model.digest, name, where)
    return None if found is None else _partition(found, where)


def _partition(found: Version, where: Where) -> Partition | None:
    if tags.PARTITION not in found.tags or found.run is None:
        return None
    path = store.database(where)
    run = tables.run(path, found.run) if path is not None else None
    address = run.artifacts if run is not None else tracking.client(where).get_run(found.run).info.artifact_uri
    folder = _local(
        f"{address}/partition", where.workspace / "splits" / f"fetched-{found.tags[tags.PARTITION][:10]}", where
    )
    kept = Partition.model_validate_json((folder / "partition.json").read_bytes())
    if kept.members.is_absolute():  # WORKSPACE/splits/NAME/members.parquet, as earlier versions wrote it
        kept = kept.relative_to(kept.members.parent.parent.parent)
    copy = folder / kept.members.name
    here = kept.resolved_in(where.workspace)
    return here if here.members.exists() else here.model_copy(update={"members": copy})


def resolve(reference: str, where: Where, name: str = "") -> Model:
    """The model that a user names; its folder lies on this machine.

    Args:
        reference: An alias, a version, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, a run id, or a bundle's folder.
        where: The store, and the workspace into which the bundle of a server's version is downloaded.
        name: The registered model; empty takes `agepipe`, or the only one there is.

    Raises:
        ModelError: there is no such model; the message says what there is.
    """
    if not reference:
        raise ModelError("model: it is empty; name an alias, a version, a run, or the folder of a bundle.")
    folder = Path(reference).expanduser().absolute()
    if (folder / bundle.CARD).is_file():
        return _in_folder(folder)
    wanted = tags.parse(reference, name)
    there = versions(wanted.name, where)
    found = next((version for version in there if wanted.names(version)), None)
    if found is not None:
        return model_of(found, where)
    if wanted.kind == "run" and (model := _of_run(wanted.value, where)) is not None:
        return model
    raise unknown(reference, wanted.name, there, where)


def weights_file(reference: str, where: Where) -> Path:
    """The state dict of a registered version, its lineage beside it: what another network may start from.

    Raises:
        ModelError: there is no such version, or none was kept with it.
    """
    path = resolve(reference, where).folder / bundle.WEIGHTS
    if not path.is_file():
        raise ModelError(
            f"learn.weights: {reference} was registered without its {bundle.WEIGHTS}; name another version, or the "
            "file of a bundle."
        )
    return path


def _of_run(run_id: str, where: Where) -> Model | None:
    """The model that a pipeline's run registered or found registered, or the bundle that a run left unregistered."""
    run = _run(run_id, where)
    if run is None:
        return None
    if registered := run.tags.get(tags.REGISTERED):  # a pipeline that found its model made by an earlier one
        name, _, number = registered.rpartition("/")
        return model_of(numbered(int(number), name, where), where)
    if not _has_bundle(run_id, run, where):
        return None
    folder = _local(f"{run.artifacts}/bundle", where.workspace / "models" / f"run-{run_id[:10]}", where)
    return _in_folder(folder).model_copy(update={"run": run_id})


def _run(run_id: str, where: Where) -> tables.Stored | None:
    """A run of the experiment that was not deleted; None where there is none."""
    path = store.database(where)
    if path is not None:
        found = tables.run(path, run_id)
        return found if found and (found.experiment, found.stage) == (where.experiment, "active") else None
    client = tracking.answering(where)
    experiment = client.get_experiment_by_name(where.experiment)
    runs = client.search_runs([experiment.experiment_id], f"attributes.run_id = '{run_id}'") if experiment else []
    return tables.Stored(runs[0].info.artifact_uri, runs[0].data.tags, where.experiment, "active") if runs else None


def _has_bundle(run_id: str, run: tables.Stored, where: Where) -> bool:
    if store.database(where) is not None:
        return _folder(run.artifacts, Path()).joinpath("bundle").is_dir()
    return any(item.path == "bundle" for item in tracking.client(where).list_artifacts(run_id))


def _in_folder(folder: Path) -> Model:
    return Model(digest=bundle.digest(folder), folder=folder, lineage=bundle.read_card(folder).lineage)


def title(reference: str, model: Model, where: Where, name: str = "") -> str:
    """What to call a model that was named by this reference: `version 2 (champion)` for one that is registered."""
    found = of_digest(model.digest, name, where)
    if found is None:
        return Path(reference).name
    return f"version {found.number}" + (f" ({found.aliases[0]})" if found.aliases else "")


def model_of(found: Version, where: Where) -> Model:
    """The model of a version; its folder lies on this machine.

    Raises:
        ModelError: the files are gone, or are not those that were registered.
    """
    target = where.workspace / "models" / f"{found.name}-v{found.number}-{found.digest[:10]}"
    folder = _local(f"{found.source}/artifacts/bundle", target, where)
    model = _in_folder(folder)
    if found.digest not in ("", model.digest):
        raise ModelError(f"{folder}: its files are not those of version {found.number}; promote another version.")
    told = json.loads(found.tags.get(tags.MODEL, "{}"))
    return Model.model_validate({**model.model_dump(), **told, "folder": folder, "run": found.run})


def _local(uri: str, target: Path, where: Where) -> Path:
    """The folder of an artifact: where it lies, or in `target` where it has to be fetched from a server."""
    folder = _folder(uri, target)
    if folder.is_dir():
        return folder
    if urlsplit(uri).scheme in ("", "file"):
        raise ModelError(f"{folder}: there is no such folder any more; restore it, or promote another version.")
    with store.locked(where, "fetch"):
        if not folder.is_dir():
            with whole(target) as draft:
                tracking.download(where, uri, draft)
    return folder


def _folder(uri: str, target: Path) -> Path:
    """Where the artifact lies, or will lie in `target` once it is fetched."""
    parts = urlsplit(uri)
    return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else target / Path(parts.path).name


def files(found: Version) -> Path | None:
    """The folder of a version's MLflow model; None where a server has it."""
    local = urlsplit(found.source).scheme in ("", "file")
    return _folder(found.source, Path()) if local and found.source else None


def of_digest(digest: str, name: str, where: Where) -> Version | None:
    """The version of a model's digest, of whatever name where none is given; None when it is not registered."""
    for one in (name,) if name else candidates(where):
        if found := next((version for version in versions(one, where) if version.digest == digest), None):
            return found
    return None


def numbered(number: int, name: str, where: Where) -> Version:
    """The version of a number.

    Raises:
        ModelError: there is no such version.
    """
    there = versions(name, where)
    found = next((version for version in there if version.number == number), None)
    if found is None:
        raise unknown(str(number), name, there, where)
    return found


def named(name: str, where: Where) -> str:
    """The name itself; for none, `agepipe`, or the only registered model of agepipe's that there is."""
    if name:
        return name
    names = candidates(where)
    return names[0] if len(names) == 1 else tags.DEFAULT_NAME


def candidates(where: Where) -> list[str]:
    """The models that a reference without a name may mean: agepipe's own, or all where none of them is known as such.

    A registry may hold models of other programs as well.
    """
    known = _names(where)
    return [name for name, ours in known.items() if ours] or list(known)


def _names(where: Where) -> dict[str, bool]:
    """The registered models by name, and whether agepipe has registered a version of each."""
    path = store.database(where)
    if path is not None:
        return tables.names(path)
    client = tracking.answering(where)
    ours = {item.name for item in client.search_model_versions(max_results=10_000) if tags.DIGEST in item.tags}
    return {model.name: model.name in ours for model in client.search_registered_models(max_results=1000)}


def unknown(reference: str, name: str, there: Sequence[Version], where: Where) -> ModelError:
    """The error for a reference that leads nowhere; it lists what there is, and names the store."""
    name = named(name, where)
    return tags.unknown(reference, name, there, where.tracking, [one for one in candidates(where) if one != name])
