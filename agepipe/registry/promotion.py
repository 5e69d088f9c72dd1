"""How a version gets an alias, whatever dies in the middle: MLflow has no transaction and no compare-and-swap.

First what is about to happen is written into one tag of the version, then the alias moves, then reason, history and
the note on the version that lost its place follow from that tag, which goes last. Moving the alias is the commit point:
where it has not moved, the registry is as it was and the tag is dropped; where it has, `mend` writes what is missing.
Every command that changes the registry mends it first. All is called with the registry's lock held.
"""

from agepipe.config.runtime import Where
from agepipe.core.errors import ModelError
from agepipe.registry import tracking
from agepipe.registry import versions as tags
from agepipe.registry.lookup import champion, numbered, versions
from agepipe.registry.versions import CHALLENGER, CHAMPION, Pending, Version


def place(found: Version, alias: str, reason: str, before: Version | None, where: Where) -> None:
    """Give a version an alias and write down why; `before` is the champion that it was compared with.

    Raises:
        ModelError: somebody whom the lock does not bind has made another version the champion meanwhile.
    """
    beaten = before.number if before is not None and alias == CHAMPION else None
    move(found, Pending.now(alias, reason, beaten=beaten, replaces=beaten), before, where)


def move(found: Version, pending: Pending, before: Version | None, where: Where) -> None:
    """Carry out what is pending: announce it, commit it, finish it.

    Raises:
        ModelError: as `place`.
    """
    tag(found, {tags.PENDING: pending.model_dump_json()}, where)
    _check_unmoved(found.name, before, where)
    tracking.client(where).set_registered_model_alias(found.name, pending.alias, str(found.number))
    finish(numbered(found.number, found.name, where), pending, where)


def _check_unmoved(name: str, before: Version | None, where: Where) -> None:
    """Refuse where the champion is not the one that was looked at; only other machines can have moved it."""
    now = champion(name, where)
    if (now and now.number) != (before and before.number):
        raise ModelError(
            f"model: version {now.number if now else 'none'} of '{name}' became the champion meanwhile, by a command "
            "that shares no workspace with this one; give the command again to compare with it."
        )


def finish(found: Version, pending: Pending, where: Where) -> None:
    """Write what follows from an alias that has moved; harmless where some of it is written already."""
    client = tracking.client(where)
    if pending.alias == CHAMPION and CHALLENGER in found.aliases:
        client.delete_registered_model_alias(found.name, CHALLENGER)
    if pending.beaten is not None:
        lost = f"version {found.number}: {pending.reason}"
        tag(numbered(pending.beaten, found.name, where), {tags.REPLACED_BY: lost}, where)
    replaces = {tags.REPLACES: str(pending.replaces)} if pending.replaces else {}
    written = {tags.HISTORY: tags.noted(found.tags, pending), tags.REASON: pending.reason, tags.REPLACED_BY: ""}
    description = " ".join(filter(None, [pending.reason, found.tags.get(tags.WARNING)]))
    client.update_model_version(found.name, str(found.number), tracking.without_mentions(description))
    tag(found, {**written, **replaces, tags.SETTLED: "yes"}, where)
    client.delete_model_version_tag(found.name, str(found.number), tags.PENDING)


def mend(name: str, where: Where) -> None:
    """Finish what a crash cut off after its commit, and drop what it cut off before."""
    for version in versions(name, where):
        if (pending := version.pending) is None:
            continue
        if pending.alias in version.aliases:
            finish(version, pending, where)
        else:
            tracking.client(where).delete_model_version_tag(name, str(version.number), tags.PENDING)


def tag(found: Version, values: dict[str, str], where: Where) -> None:
    """Write tags on a version."""
    for key, value in values.items():
        tracking.client(where).set_model_version_tag(found.name, str(found.number), key, value)
