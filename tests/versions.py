"""Small models in a real registry, for the tests of what becomes of their versions."""

from pathlib import Path
from typing import NamedTuple

from bundles import make_bundle

from agepipe.config.runtime import Runtime
from agepipe.config.stages import ReleaseSettings
from agepipe.evaluation.records import Evaluation
from agepipe.model.bundle import digest
from agepipe.model.records import Model
from agepipe.registry import lookup, register
from agepipe.registry.records import Registered

RELEASE = ReleaseSettings()


class Verdict(NamedTuple):
    promote: bool
    reason: str


def better(_: Model) -> Verdict:
    return Verdict(True, "Promoted: better.")


def worse(_: Model) -> Verdict:
    return Verdict(False, "Not promoted: worse.")


def judged(model: Model) -> Evaluation:
    return Evaluation(
        digest="e" * 64, model=model.digest, rows="r" * 64, count=100, folder=model.folder,
        metrics={"macro_recall": 0.4321, "mae": 5.0}, intervals={"macro_recall": (0.4, 0.46)},
    )  # fmt: skip


def model(tmp_path: Path, sharpness: float = 60.0, known: bool = True) -> Model:
    made = make_bundle(tmp_path / f"bundle-{sharpness}-{known}", sharpness=sharpness, known=known)
    return made.model_copy(update={"metrics": {"accuracy": 0.5}, "epochs": 7})


def put(tmp_path: Path, runtime: Runtime, sharpness: float, decide: object = better) -> Registered:
    new = model(tmp_path, sharpness)
    return register.register(new, judged(new), RELEASE, runtime, decide=decide)  # type: ignore[arg-type]


def registered(folder: Path, runtime: Runtime) -> int:
    """Register a bundle without a comparison with the champion; gives its version."""
    model = Model(digest=digest(folder), folder=folder, lineage="known")
    return register.register(model, judged(model), RELEASE, runtime).version


def histories(runtime: Runtime) -> dict[int, list[str]]:
    found = lookup.versions("agepipe", runtime)
    return {v.number: [line.split(" UTC ")[1] for line in v.tags["agepipe.history"].splitlines()] for v in found}


def standing(runtime: Runtime) -> list[tuple[int, tuple[str, ...], dict[str, str]]]:
    """All that the registry says of each version, but for the note of what was about to happen."""
    found = lookup.versions("agepipe", runtime)
    return [(v.number, v.aliases, {k: t for k, t in v.tags.items() if k != "agepipe.pending"}) for v in found]
