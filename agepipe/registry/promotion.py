"""Assign an alias to a version in a crash-safe way: MLflow has neither transactions nor compare-and-swap.

A promotion first writes one tag that holds the whole decision, then moves the alias, then writes reason, history and a
note on the replaced version from that tag, and finally deletes the tag. Moving the alias is the commit point. If a
promotion is interrupted before it, the registry is unchanged and `recover` deletes the tag; after it, `recover` writes
what is missing. Every command that changes the registry calls `recover` first. All functions require the registry's
lock.
"""

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ModelError
from agepipe.registry import tracking
from agepipe.registry import versions as tags
from agepipe.registry.lookup import champion, numbered, versions
from agepipe.registry.versions import CHALLENGER, CHAMPION, Pending, Version


def place(found: Version, alias: str, reason: str, before: Version | None, runtime: Runtime) -> None:
    """Assign an alias to a version and record the reason; `before` is the champion that it was compared with.

    Raises:
        ModelError: a process that does not share the lock has changed the champion in the meantime.
    """
    beaten = before.number if before is not None and alias == CHAMPION else None
    move(found, Pending.now(alias, reason, beaten=beaten, replaces=beaten), before, runtime)


def move(found: Version, pending: Pending, before: Version | None, runtime: Runtime) -> None:
    """Execute a decision: write its tag, move the alias, write what follows.

    Raises:
        ModelError: as `place`.
    """
    tag(found, {tags.PENDING: pending.model_dump_json()}, runtime)
    _check_unmoved(found.name, before, runtime)
    tracking.client(runtime).set_registered_model_alias(found.name, pending.alias, str(found.number))
    finish(numbered(found.number, found.name, runtime), pending, runtime)


def _check_unmoved(name: str, before: Version | None, runtime: Runtime) -> None:
    """Raise an error if the champion has changed since it was read; only other machines can have changed it."""
    now = champion(name, runtime)
    if (now and now.number) != (before and before.number):
        raise ModelError(
            f"model: version {now.number if now else 'none'} of '{name}' became the champion meanwhile, by a command "
            "that shares no workspace with this one; give the command again to compare with it."
        )


def finish(found: Version, pending: Pending, runtime: Runtime) -> None:
    """Write what follows from an alias that has moved; idempotent."""
    client = tracking.client(runtime)
    if pending.alias == CHAMPION and CHALLENGER in found.aliases:
        client.delete_registered_model_alias(found.name, CHALLENGER)
    if pending.beaten is not None:
        lost = f"version {found.number}: {pending.reason}"
        tag(numbered(pending.beaten, found.name, runtime), {tags.REPLACED_BY: lost}, runtime)
    replaces = {tags.REPLACES: str(pending.replaces)} if pending.replaces else {}
    written = {tags.HISTORY: tags.noted(found.tags, pending), tags.REASON: pending.reason, tags.REPLACED_BY: ""}
    description = " ".join(filter(None, [pending.reason, found.tags.get(tags.WARNING)]))
    client.update_model_version(found.name, str(found.number), tracking.without_mentions(description))
    tag(found, {**written, **replaces, tags.SETTLED: "yes"}, runtime)
    client.delete_model_version_tag(found.name, str(found.number), tags.PENDING)


def recover(name: str, runtime: Runtime) -> None:
    """Complete promotions that were interrupted after their alias moved, and discard those interrupted before."""
    for version in versions(name, runtime):
        if (pending := version.pending) is None:
            continue
        if pending.alias in version.aliases:
            finish(version, pending, runtime)
        else:
            tracking.client(runtime).delete_model_version_tag(name, str(version.number), tags.PENDING)


def tag(found: Version, values: dict[str, str], runtime: Runtime) -> None:
    """Write tags on a version."""
    for key, value in values.items():
        tracking.client(runtime).set_model_version_tag(found.name, str(found.number), key, value)
