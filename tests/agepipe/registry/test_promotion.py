"""A promotion is there whole or not at all, whatever dies and whoever comes between."""

from collections.abc import Callable
from pathlib import Path

import pytest
from versions import Verdict, better, histories, put, standing, worse

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ModelError
from agepipe.model.records import Model
from agepipe.registry import lookup, register, tracking

WRITES = (
    "set_model_version_tag", "delete_model_version_tag", "set_registered_model_alias",
    "delete_registered_model_alias", "update_model_version",
)  # fmt: skip
"""All by which a promotion changes the registry."""


def cut_before(write: int, patch: pytest.MonkeyPatch) -> None:
    """Let MLflow's client die instead of making this write, counted from 1."""
    from mlflow import MlflowClient

    left = iter(range(write - 1))

    def dying(whole: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return whole(*args, **kwargs)

        return call

    for name in WRITES:
        patch.setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))


def test_a_promotion_that_dies_anywhere_is_there_whole_or_not_at_all(
    tracked: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, tracked, 60.0)
    put(tmp_path, tracked, 50.0, worse)
    expected = histories(tracked)
    committed = 0
    for write in range(1, 20):
        before = standing(tracked)
        current = lookup.champion("agepipe", tracked)
        assert current is not None
        other = 3 - current.number
        with monkeypatch.context() as patch:
            cut_before(write, patch)
            try:
                register.promote("agepipe", other, f"Try {write}.", tracked)
                break  # it needs fewer writes than that
            except KeyboardInterrupt:
                pass
        now = lookup.champion("agepipe", tracked)
        assert now is not None
        if now.number == current.number:
            assert standing(tracked) == before
            register.promote("agepipe", current.number, "Nothing to do but mend.", tracked)
            assert standing(tracked) == before
        else:
            committed += 1
            register.promote("agepipe", other, "Nothing to do but mend.", tracked)
            expected[other].append(f"champion: Try {write}.")
            two, one = lookup.versions("agepipe", tracked)
            new, old = (two, one) if other == 2 else (one, two)
            assert (new.aliases, old.aliases, new.replaces) == (("champion",), (), old.number)
            assert (new.tags["agepipe.reason"], new.tags["agepipe.replaced_by"]) == (f"Try {write}.", "")
            assert old.tags["agepipe.replaced_by"] == f"version {other}: Try {write}."
            description = tracking.client(tracked).get_model_version("agepipe", str(other)).description
            assert description == f"Try {write}."
        assert histories(tracked) == expected
        assert not any(version.pending for version in lookup.versions("agepipe", tracked))
    else:
        pytest.fail("a promotion never came to its end")
    assert committed > 5


@pytest.mark.parametrize("write", [1, 2, 3, 4])
def test_a_registration_that_was_cut_off_is_carried_on(
    tracked: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    put(tmp_path, tracked, 60.0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_before(write, patch)
        put(tmp_path, tracked, 50.0)
    second = put(tmp_path, tracked, 50.0)
    assert (second.version, second.alias, second.reason) == (2, "champion", "Promoted: better.")
    assert histories(tracked)[2] == ["champion: Promoted: better."]
    assert lookup.versions("agepipe", tracked)[1].tags["agepipe.replaced_by"] == "version 2: Promoted: better."


def test_any_command_mends_what_another_left(tracked: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, tracked, 60.0)
    put(tmp_path, tracked, 50.0, worse)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_before(3, patch)  # after the note and the alias
        register.promote("agepipe", 2, "Better at night.", tracked)
    assert register.rollback("agepipe", tracked) == 1
    assert histories(tracked)[2] == ["challenger: Not promoted: worse.", "champion: Better at night."]


def test_a_champion_that_another_machine_made_meanwhile_is_not_overrun(tracked: Runtime, tmp_path: Path) -> None:
    """The lock binds those who share a workspace; for the others the champion is looked at again before the commit."""
    for sharpness in (60.0, 50.0, 40.0):
        put(tmp_path, tracked, sharpness, worse)

    def overtaken(_: Model) -> Verdict:
        tracking.client(tracked).set_registered_model_alias("agepipe", "champion", "2")
        return Verdict(True, "Promoted: better.")

    with pytest.raises(ModelError, match="version 2 of 'agepipe' became the champion meanwhile"):
        register.release(lookup.resolve("3", tracked), "", tracked, overtaken)
    assert register.release(lookup.resolve("3", tracked), "", tracked, better).alias == "champion"
    assert lookup.versions("agepipe", tracked)[0].replaces == 2
