"""Versions in a real registry: registered once, promoted with a reason, found by every name, fetched from a server."""

import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from versions import RELEASE, Verdict, better, histories, judged, model, put, standing, worse

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ModelError
from agepipe.model import bundle
from agepipe.model.records import Model
from agepipe.registry import lookup, register, store, tracking

MENTION = re.compile(r"(^|\s)@[a-z\d]", re.IGNORECASE | re.MULTILINE)
"""What MLflow's pages make a link to somebody's account at GitHub of."""


def test_the_first_version_is_champion_and_says_what_it_is(tracked: Runtime, tmp_path: Path) -> None:
    first = put(tmp_path, tracked, 60.0, worse)
    assert (first.version, first.alias, first.reason) == (
        1, "champion", "First version, so it is the champion.",
    )  # fmt: skip
    found = lookup.champion("agepipe", tracked)
    assert found is not None
    assert found.digest == first.digest
    assert found.tags["test.macro_recall"] == "0.4321 (0.4 to 0.46)"
    assert found.tags["test.mae"] == "5"
    assert found.tags["evaluation.digest"] == "e" * 64
    assert found.tags["lineage"] == "known"
    version = tracking.client(tracked).get_model_version("agepipe", "1")
    assert version.description == first.reason


def test_a_model_is_registered_once(tracked: Runtime, tmp_path: Path) -> None:
    first = put(tmp_path, tracked, 60.0)
    assert put(tmp_path, tracked, 60.0, worse) == first
    assert len(lookup.versions("agepipe", tracked)) == 1


def test_a_better_one_replaces_the_champion_and_a_worse_one_does_not(tracked: Runtime, tmp_path: Path) -> None:
    shown: list[Model] = []

    def decide(champion: Model) -> Verdict:
        shown.append(champion)
        return Verdict(champion.epochs == 7, "Promoted: it is better.")

    first = put(tmp_path, tracked, 60.0)
    second = put(tmp_path, tracked, 50.0, decide)
    third = put(tmp_path, tracked, 40.0, worse)
    assert [item.alias for item in (first, second, third)] == ["champion", "champion", "challenger"]
    assert (shown[0].digest, bundle.digest(shown[0].folder)) == (first.digest, first.digest)
    three, two, one = lookup.versions("agepipe", tracked)
    assert (one.alias, two.alias, three.alias) == ("retired", "champion", "challenger")
    assert two.replaces == 1
    assert one.tags["agepipe.replaced_by"] == "version 2: Promoted: it is better."
    assert three.record().reason == "Not promoted: worse."
    assert put(tmp_path, tracked, 60.0).alias == "retired"


def test_without_a_comparison_nothing_is_promoted(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    assert put(tmp_path, tracked, 50.0, None).alias == "challenger"


def test_a_model_of_unknown_lineage_is_never_promoted_by_itself(tracked: Runtime, tmp_path: Path) -> None:
    imported = model(tmp_path, known=False)
    first = register.register(imported, judged(imported), RELEASE, tracked, decide=better)
    assert first.alias == "challenger"
    assert "nobody knows what it was trained on" in first.reason
    assert lookup.champion("agepipe", tracked) is None
    assert register.promote("agepipe", 1, "Measured by hand.", tracked).alias == "champion"


def test_an_evaluation_of_another_model_is_refused(tracked: Runtime, tmp_path: Path) -> None:
    mine, other = model(tmp_path), model(tmp_path, 50.0)
    with pytest.raises(ModelError, match=f"evaluation: .*{other.digest[:10]}.*{mine.digest[:10]}"):
        register.register(mine, judged(other), RELEASE, tracked)


def test_a_release_decides_anew_about_a_version(tracked: Runtime, tmp_path: Path) -> None:
    first = put(tmp_path, tracked, 60.0)
    put(tmp_path, tracked, 50.0, worse)
    challenger = lookup.resolve("challenger", tracked)

    def still_worse(champion: Model) -> Verdict:
        return Verdict(champion.digest != first.digest, "Not promoted: still worse.")

    stays = register.release(challenger, "", tracked, still_worse)
    assert (stays.version, stays.alias, stays.reason) == (2, "challenger", "Not promoted: still worse.")
    takes_over = register.release(challenger, "", tracked, better)
    assert (takes_over.alias, register.release(challenger, "", tracked, worse)) == ("champion", takes_over)
    assert histories(tracked)[2] == [
        "challenger: Not promoted: worse.", "challenger: Not promoted: still worse.", "champion: Promoted: better.",
    ]  # fmt: skip
    with pytest.raises(ModelError, match="has no version of 'agepipe'"):
        register.release(model(tmp_path, 40.0), "", tracked, better)


def test_promotion_and_rollback_by_hand_write_history(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    put(tmp_path, tracked, 50.0, worse)
    assert register.promote("", 2, "Better on the new camera.", tracked).alias == "champion"
    assert register.rollback("agepipe", tracked) == 1
    two, one = lookup.versions("agepipe", tracked)
    assert (one.alias, two.alias) == ("champion", "retired")
    assert two.tags["agepipe.replaced_by"] == "version 1: Rolled back from version 2."
    lines = two.tags["agepipe.history"].splitlines()
    assert [line.split(" UTC ")[1] for line in lines] == [
        "challenger: Not promoted: worse.", "champion: Better on the new camera.",
    ]  # fmt: skip
    with pytest.raises(ModelError, match="no earlier champion"):
        register.rollback("agepipe", tracked)


def test_a_rollback_goes_to_the_champion_before_not_to_the_number_before(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    put(tmp_path, tracked, 50.0, worse)
    assert put(tmp_path, tracked, 40.0).alias == "champion"
    assert register.rollback("agepipe", tracked) == 1
    assert [found.alias for found in lookup.versions("agepipe", tracked)] == ["retired", "challenger", "champion"]
    register.promote("agepipe", 2, "Better at night.", tracked)
    register.promote("agepipe", 1, "Better by day.", tracked)
    assert register.rollback("agepipe", tracked) == 2


def test_whatever_changes_the_registry_waits_for_its_turn(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    put(tmp_path, tracked, 50.0)
    new, two = model(tmp_path, 40.0), lookup.resolve("2", tracked)
    changes: list[Callable[[], object]] = [
        lambda: register.rollback("agepipe", tracked),
        lambda: register.promote("agepipe", 2, "Better at night.", tracked),
        lambda: register.release(two, "agepipe", tracked, worse),
        lambda: register.register(new, judged(new), RELEASE, tracked, decide=worse),
    ]
    with ThreadPoolExecutor(1) as pool:
        for change in changes:
            before = standing(tracked)
            with store.locked(tracked, "registry"):
                running = pool.submit(change)
                with pytest.raises(TimeoutError):
                    running.result(timeout=0.5)
                assert standing(tracked) == before
            running.result(timeout=60)


def test_a_promotion_needs_a_version_and_a_reason(tracked: Runtime, tmp_path: Path) -> None:
    put(tmp_path, tracked, 60.0)
    with pytest.raises(ModelError, match="because: it is empty"):
        register.promote("agepipe", 1, " ", tracked)
    with pytest.raises(
        ModelError, match=r"'9' is not known; 'agepipe' has the versions 1 and .* champion \(version 1\)"
    ):
        register.promote("agepipe", 9, "why not", tracked)


def test_a_version_that_is_no_better_than_a_guess_says_so_and_links_to_no_stranger(
    tracked: Runtime, tmp_path: Path
) -> None:
    new = model(tmp_path)
    poor = judged(new).model_copy(update={"warning": "No better than a guess."})
    register.register(new, poor, RELEASE, tracked)
    register.register(model(tmp_path, 50.0), None, RELEASE, tracked, decide=worse)
    client = tracking.client(tracked)
    assert "No better than a guess." in client.get_model_version("agepipe", "1").description
    register.promote("agepipe", 2, "@anna tried it, says @bert", tracked)
    described = client.get_model_version("agepipe", "2").description
    assert not re.search(MENTION, described)
    assert described.replace("\\", "") == "@anna tried it, says @bert"


@pytest.mark.slow
def test_two_processes_register_at_once(tracked: Runtime, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from versions import put
runtime = Runtime(tracking=sys.argv[2], workspace=Path(sys.argv[3]))
print(put(Path(sys.argv[3]), runtime, float(sys.argv[4])).version)
"""
    root = Path(__file__).parents[2]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(root), tracked.tracking, str(tmp_path), sharpness],
            stdout=subprocess.PIPE, text=True,
        )
        for sharpness in ("60", "50")
    ]  # fmt: skip
    assert sorted(int(process.communicate(timeout=180)[0]) for process in running) == [1, 2]
    two, one = lookup.versions("agepipe", tracked)
    assert (one.alias, two.alias, two.replaces) == ("retired", "champion", 1)
