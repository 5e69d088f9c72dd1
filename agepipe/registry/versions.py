"""Tags of versions in the model registry, and references by which a user names a model. Does not use MLflow."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from agepipe.core.errors import ModelError
from agepipe.data.records import Partition
from agepipe.evaluation.records import Evaluation
from agepipe.model.records import Model
from agepipe.registry.records import Registered

CHAMPION, CHALLENGER, RETIRED = "champion", "challenger", "retired"
DEFAULT_NAME = "agepipe"

MODEL, DIGEST, REASON = "agepipe.model", "agepipe.digest", "agepipe.reason"
REPLACES, REPLACED_BY = "agepipe.replaces", "agepipe.replaced_by"
SETTLED, HISTORY = "agepipe.settled", "agepipe.history"
PENDING = "agepipe.pending"
"""Tag of a version during a promotion: a `Pending`, from before its alias moves until all other tags are written."""
REGISTERED = "model.version"
"""Tag of a pipeline's run: `NAME/NUMBER` of the version that it registered or found."""
WARNING = "test.warning"
"""Tag of a version that is no better than a constant guess in some main figures: a sentence that names them."""
PARTITION, PIPELINE, EVALUATED = "agepipe.partition", "agepipe.pipeline", "agepipe.evaluation_run"


class Pending(BaseModel):
    """A decision about a version: all that must be written once its alias has moved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alias: str
    reason: str
    at: str
    """Time of the decision, in the form of the history."""
    beaten: int | None
    """The version that stops being champion; None for a challenger or a first champion."""
    replaces: int | None
    """The champion before this one, which a rollback restores."""

    @classmethod
    def now(cls, alias: str, reason: str, *, beaten: int | None, replaces: int | None) -> Self:
        """A decision with the current time."""
        return cls(
            alias=alias, reason=reason, at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", beaten=beaten, replaces=replaces
        )


class Version(BaseModel):
    """A version in the registry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    number: int
    run: str | None
    source: str
    """URI of the MLflow model's files."""
    aliases: tuple[str, ...]
    tags: dict[str, str]

    @property
    def digest(self) -> str:
        """The model's digest; empty for a version that agepipe did not register."""
        return self.tags.get(DIGEST, "")

    @property
    def alias(self) -> str:
        """`champion`, `challenger`, or `retired` for a version without an alias."""
        return next((alias for alias in (CHAMPION, CHALLENGER) if alias in self.aliases), RETIRED)

    @property
    def settled(self) -> bool:
        """Whether its alias was decided and assigned."""
        return SETTLED in self.tags

    @property
    def replaces(self) -> int | None:
        """The version that was champion before this one."""
        return int(self.tags[REPLACES]) if self.tags.get(REPLACES) else None

    @property
    def pending(self) -> Pending | None:
        """The decision that a command is executing or that a crash has interrupted; None if there is none."""
        return Pending.model_validate_json(self.tags[PENDING]) if self.tags.get(PENDING) else None

    def record(self) -> Registered:
        """The record of this version."""
        return Registered(
            digest=self.digest, run=self.run, name=self.name, version=self.number, alias=self.alias,
            reason=self.tags.get(REASON, ""),
        )  # fmt: skip


def facts(
    model: Model, evaluation: Evaluation | None, partition: Partition | None, pipeline: str | None
) -> dict[str, str]:
    """The tags of a new version: its model, the rows of its evaluation, and the figures with their intervals."""
    known = {MODEL: model.model_dump_json(exclude={"folder"}), DIGEST: model.digest, "lineage": model.lineage}
    linked = {PIPELINE: pipeline, PARTITION: partition.digest if partition else None}
    return known | _evaluated(evaluation) | {name: value for name, value in linked.items() if value}


def _evaluated(evaluation: Evaluation | None) -> dict[str, str]:
    if evaluation is None:
        return {}
    return {
        "evaluation.digest": evaluation.digest,
        "test.digest": evaluation.rows,
        "test.rows": str(evaluation.count),
        **{f"test.{name}": _figure(name, value, evaluation) for name, value in evaluation.metrics.items()},
        **({WARNING: evaluation.warning} if evaluation.warning else {}),
        **({EVALUATED: evaluation.run} if evaluation.run else {}),
    }


def _figure(name: str, value: float, evaluation: Evaluation) -> str:
    if name not in evaluation.intervals:
        return f"{value:.4g}"
    low, high = evaluation.intervals[name]
    return f"{value:.4g} ({low:.4g} to {high:.4g})"


def noted(tags: Mapping[str, str], pending: Pending) -> str:
    """The version's history with one more line: time, alias and reason; a line that is last already is not repeated."""
    line, lines = f"{pending.at} {pending.alias}: {pending.reason}", tags.get(HISTORY, "").splitlines()
    return "\n".join(lines if line in lines[-1:] else [*lines, line])


class Reference(NamedTuple):
    """A parsed reference to a model."""

    kind: Literal["version", "alias", "run"]
    value: str
    name: str

    def names(self, version: Version) -> bool:
        """Whether the reference is to this version; a run is that which trained, evaluated or registered it."""
        if self.kind == "version":
            return version.number == int(self.value)
        if self.kind == "alias":
            return self.value in version.aliases
        return self.value in (version.run, version.tags.get(PIPELINE), version.tags.get(EVALUATED))


def parse(text: str, name: str) -> Reference:
    """Read `champion`, `@champion`, `3`, `NAME@champion`, `NAME/3`, the same after `models:/`, or a run id.

    Raises:
        ModelError: the text is none of these.
    """
    match = re.fullmatch(r"(?:models:/)?(?:(?P<name>[\w\-]+)(?=[@/]))?[@/]?(?P<value>[\w\-]+)", text)
    if match is None:
        raise ModelError(
            f"model: {text!r} is not a reference; write an alias (champion), a version (3), models:/NAME/VERSION, a "
            "run id, or the folder of a bundle."
        )
    value, name = match["value"], match["name"] or name
    if value.isdecimal() and len(value) < 10:
        return Reference("version", str(int(value)), name)
    return Reference("run" if re.fullmatch(r"[0-9a-f]{32}", value) else "alias", value, name)
