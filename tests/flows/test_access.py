"""The password of the servers that `agepipe up` keeps, and who gets it."""

import os
import re
from collections.abc import Iterator

import pytest

from agepipe.config.runtime import Runtime
from agepipe.core.errors import ServiceError
from flows import access, environment

NAMES = ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_URL")
KEPT = "http://127.0.0.1:4200/api"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `prepare` sets is gone after the test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("PREFECT_"):
                patch.delenv(name)
        before = dict(os.environ)
        yield
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_only_its_user_can_read_it_and_the_next_up_has_the_same(runtime: Runtime, open_umask: None) -> None:
    first = access.made(runtime)
    assert re.fullmatch(r"agepipe:[\w-]{32}", first)
    assert access.file(runtime).stat().st_mode & 0o777 == 0o600
    assert (access.made(runtime), access.kept(runtime)) == (first, first)
    assert [path.name for path in runtime.workspace.iterdir()] == ["password"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_one_that_others_could_read_or_write_is_replaced(mode: int, runtime: Runtime) -> None:
    first = access.made(runtime)
    access.file(runtime).chmod(mode)
    assert not access.private(runtime)
    assert access.made(runtime) != first
    assert access.private(runtime)


def test_a_link_in_its_place_is_not_followed(runtime: Runtime) -> None:
    runtime.workspace.mkdir(parents=True)
    elsewhere = runtime.workspace.with_name("elsewhere")
    elsewhere.write_text("agepipe:planted", encoding="utf-8")
    elsewhere.chmod(0o600)
    access.file(runtime).symlink_to(elsewhere)
    assert access.made(runtime) != "agepipe:planted"
    assert elsewhere.read_text(encoding="utf-8") == "agepipe:planted"


def test_a_password_that_is_gone_is_named(runtime: Runtime) -> None:
    with pytest.raises(ServiceError, match=str(access.file(runtime))):
        environment.prepare(runtime, KEPT)


def test_a_command_takes_the_password_of_the_kept_server(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "of another server")
    auth = access.made(runtime)
    environment.prepare(runtime, KEPT)
    assert [os.environ.get(name) for name in NAMES] == [auth, None, KEPT]
    assert os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30", "a server that stays notices dead runs by it"


def test_the_temporary_server_of_each_command_has_one_of_its_own(runtime: Runtime) -> None:
    found = set()
    for _ in range(2):
        environment.prepare(runtime, None)
        ours, servers, address = (os.environ.get(name) for name in NAMES)
        assert (ours == servers, address, len(ours or "")) == (True, None, 40)
        found.add(ours)
    assert len(found) == 2
    assert "PREFECT_FLOWS_HEARTBEAT_FREQUENCY" not in os.environ, "each flow would end up to a second later"
    assert not access.file(runtime).exists(), "nobody else needs to know it"
    assert os.environ["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    assert os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == access.NOBODY


def test_a_server_on_loopback_is_not_ours_where_ours_listens_on_another_address(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "of another server")
    environment.prepare(runtime, "http://192.0.2.5:4200/api")
    assert os.environ["PREFECT_API_AUTH_STRING"] == "of another server"


@pytest.mark.parametrize("auth", ["user:secret", None])
@pytest.mark.parametrize("kept", [KEPT, None])
def test_a_server_of_the_users_own_is_asked_as_the_user_said(
    auth: str | None, kept: str | None, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example/api")
    if auth:
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", auth)
    environment.prepare(runtime, kept)
    assert [os.environ.get(name) for name in NAMES] == [auth, None, "https://prefect.example/api"]


@pytest.mark.parametrize(
    ("named", "given"),
    [
        (KEPT, True), (f"{KEPT}/", True), (KEPT.replace("127.0.0.1", "localhost"), True),
        ("http://127.0.0.1:4201/api", False), ("http://10.0.0.5:4200/api", False),
    ],
)  # fmt: skip
def test_a_server_that_the_user_names_gets_the_password_only_if_it_is_the_kept_one(
    named: str, given: bool, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", named)
    auth = access.made(runtime)
    environment.prepare(runtime, KEPT)
    assert [os.environ.get(name) for name in NAMES] == [auth if given else None, None, named]
