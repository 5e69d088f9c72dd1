"""The command line as its user meets it: a real process, its exit code and what it says. No Prefect server starts."""

import errno
import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from bundles import make_bundle
from click import unstyle
from commands import agepipe
from prefect.exceptions import CancelledRun, CrashedRun, MissingResult, ParameterTypeError
from typer.testing import CliRunner

from agepipe.config import presets
from agepipe.core.errors import AgepipeError, OutputError, ServiceError, TrackingError
from flows import cli, failures

COMMANDS = (
    "run", "evaluate", "compare", "release", "audit", "import", "promote", "rollback", "up", "down", "predict",
    "deploy", "camera", "web",
)  # fmt: skip
HELP_LIMIT = 0.5
"""Seconds that the help may take."""


Refused = Callable[..., str]
"""Calls the command line with words that it refuses, in this process; what it says on standard error."""


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    def called(*words: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["agepipe", *words])
        before = sorted(tmp_path.iterdir())
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert (ended.value.code, said.out, len(said.err.splitlines())) == (1, "", 1)
        assert said.err.startswith("error: ")
        assert sorted(tmp_path.iterdir()) == before
        return said.err

    return called


def seconds_for_help(cwd: Path) -> tuple[float, float]:
    """Seconds on the clock and seconds of the processor."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    assert agepipe(cwd, "--help").returncode == 0
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds_for_typer() -> float:
    """Processor time that importing typer and what it draws a help page with takes alone."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import typer.rich_utils"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_answers_at_once(tmp_path: Path) -> None:
    """Within the limit, or on a slow machine within half as much again as the library that draws it needs alone."""
    rounds = [(*seconds_for_help(tmp_path), seconds_for_typer()) for _ in range(3)]
    wall, processor, typer = (min(seconds) for seconds in zip(*rounds, strict=True))
    assert processor < max(HELP_LIMIT, 1.5 * typer)
    # On a machine with more work than cores the clock says how busy it is, not how long the help takes.
    if os.getloadavg()[0] < (os.cpu_count() or 1):
        assert wall < max(HELP_LIMIT, 2 * typer)


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("flows.cli", {"prefect", "mlflow", "torch", "polars", "numpy", "cv2", "sklearn"}),
        ("flows.entry", {"prefect"}),  # the temporary server starts before it is imported
        (
            "flows.pipelines, flows.evaluate, flows.compare, flows.release",
            {
                "prefect.server.api.server",
                "mlflow",
                "torch",
                "sklearn",
                "scipy",
                "matplotlib",
                "pandas",
                "optuna",
                "dask",
                "distributed",
            },
        ),
    ],
)
def test_help_and_flows_import_nothing_heavy(modules: str, heavy: set[str], tmp_path: Path) -> None:
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_help_names_every_command() -> None:
    said = CliRunner().invoke(cli.app, ["--help"]).output
    assert all(command in said for command in COMMANDS)
    assert "agepipe run sample" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command: str) -> None:
    done = CliRunner().invoke(cli.app, [command, "--help"])
    assert done.exit_code == 0
    assert f"Example: agepipe {command}" in done.output


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("run", "lapptop"), ("preset: 'lapptop' is not known", *presets.names())),
        (("run", "sample", "search.fold=3"), ("there is no field 'search.fold'", "nearest is 'search.folds'")),
        (("run", "sample", "serch.folds=3"), ("there is no field 'serch.folds'", "nearest is 'search.folds'")),
        (("run", "sample", "search.folds=1"), ("'search.folds' is 1", "greater than or equal to 2")),
        (("run", "sample", "learn.lr=0.005"), ("'learn.lr' is 0.005", "search.grid.lr=[0.005]", "search.grid={}")),
        (("run", "sample", "learn.target=decades"), ("'learn.target' is 'decades'", "'ranges'", "'years'")),
        (("run", "sample", "folds"), ("'folds' is not 'field=value'", "for example search.folds=3")),
        (
            ("run", "notebook", "--variant", "fith"),
            ("variant: 'fith' is not known", "nearest is 'fifth'", "and all"),
        ),
        (("run", "sample", "--variant", "all"), ("the preset sample has no variants",)),
        (("run", "notebook", "--variant", "last", "learn.size=300"), ("learn.size: 300 px",)),
        (("run", "sample", "--device", "tpu"), ("'device' is 'tpu'", "'cpu'", "'cuda'")),
        (("run", "sample", "--runner", "ray"), ("'runner' is 'ray'", "'threads', 'processes' or 'dask'")),
        (("run", "sample", "--scheduler", "tcp://a:1"), ("scheduler: 'tcp://a:1' does nothing", "'dask'")),
        (("run", "sample", "search.space={lrr={low=1,high=2}}"), ("no field 'lrr'", "nearest is 'lr'")),
        (("import", "nowhere.pt", "--order", "text"), ("nowhere.pt: there is no such file",)),
        (("import", "nowhere.pt", "--order", "size"), ("'order' is 'size'", "'age' or 'text'")),
        (("release", "2", "margn=1"), ("release: there is no field 'margn'", "nearest is 'margin'")),
        (("release", "2", "watch=['hair']"), ("'watch.0' is 'hair'", "'gender', 'race'")),
        (("audit", "nowhere/UTKFace"), ("nowhere/UTKFace",)),
        (("audit", "sample", "--ranges", "1-17,16-99"), ("ranges",)),
        (("predict", "nowhere", "--output", "out.xlsx"), ("ends in '.xlsx'",)),
        (("predict", "nowhere", "--output", "out.csv"), ("nowhere does not exist",)),
    ],
)
def test_an_error_is_one_sentence(words: tuple[str, ...], parts: tuple[str, ...], refused: Refused) -> None:
    said = unstyle(refused(*words))
    assert [part for part in parts if part not in said] == []


def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "app", lambda: Path("/dev/full").write_text("more than there is room for"))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = "error: the disk is full; make room, then give the same command again: it goes on from what is finished.\n"
    assert (ended.value.code, capsys.readouterr().err) == (1, said)


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("predict", "", "--output", "x.csv"), "PATH"),
        (("predict", "x.jpg", "--output", ""), "--output"),
        (("camera", "--source", ""), "--source"),
        (("camera", "--headless", "--events", ""), "--events"),
        (("camera", "--headless", "--output", ""), "--output"),
        (("audit", ""), "DATA"),
        (("import", "", "--order", "age"), "FILE"),
        (("run", "sample", "--data", ""), "--data"),
        (("run", "sample", "source.data=['']"), "source"),
        (("evaluate", ""), "model"),
        (("evaluate", "--data", ""), "--data"),
        (("compare", "", "1"), "model"),
        (("release", ""), "model"),
        (("deploy", ""), "model"),
        (("evaluate", "--workspace", ""), "--workspace"),
        (("down", "--workspace", ""), "--workspace"),
        (("predict", "x.jpg", "--output", "x.csv", "--tracking", ""), "--tracking"),
    ],
)
def test_an_empty_string_is_no_path(words: tuple[str, ...], field: str, tmp_path: Path, refused: Refused) -> None:
    """A variable that is not set would mean the whole current folder, here one with a bundle in it."""
    make_bundle(tmp_path)
    said = refused(*words)
    assert said.startswith(f"error: {field}:")
    assert "''" in said or "empty" in said


MISTYPED = (
    ("evaluate", "99"), ("evaluate", "nope"), ("evaluate", "f" * 32), ("evaluate", "BUNDLE", "--data", "/nope"),
    ("compare", "1", "nope"), ("compare", "BUNDLE", "BUNDLE"), ("release", "99"), ("deploy", "nope"),
    ("run", "laptop"), ("run", "laptop", "--data", "/nope"), ("run", "sample", "learn.weights=models:/agepipe/9"),
    ("run", "sample", "--refresh", "trane"), ("promote", "99", "--because", "x"), ("rollback",),
    ("audit", "/nope"), ("run", "BUNDLE/card.json"), ("audit", "."),
    ("predict", "BUNDLE/card.json", "--model", "nope", "--output", "x.csv"),
)  # fmt: skip
REFUSING = """
import sys
from flows import cli
for words in WORDS:
    sys.argv = ["agepipe", *words]
    try:
        cli.main()
    except SystemExit as ended:
        print(ended.code)
print(*sorted({"prefect", "mlflow", "torch"} & set(sys.modules)))
"""


def test_what_is_mistyped_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    """A server takes half a minute to start, and would keep the failed run; nothing heavy is even imported."""
    bundle = tmp_path / "bundle"
    make_bundle(bundle)
    (tmp_path / "empty").mkdir()
    words = [[word.replace("BUNDLE", str(bundle)) for word in one] for one in MISTYPED]
    done = subprocess.run(
        [sys.executable, "-c", REFUSING.replace("WORDS", repr(words))], cwd=tmp_path / "empty", capture_output=True,
        text=True, timeout=100, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["1"] * len(words) + [""]
    assert len(done.stderr.splitlines()) == len(words)
    assert all(line.startswith("error: ") for line in done.stderr.splitlines())
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_terminal_that_is_not_utf8_is_no_fault(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['agepipe', 'predict', '/nope/→.jpg', '--output', 'ü→.csv']\n"
    code += "from flows.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr[:7]) == (1, b"error: ")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "kind", "part"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), OutputError, "/a/b"),
        (OSError(errno.EROFS, "Read-only file system", "/a/b"), OutputError, "read-only"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/a/b"), OutputError, "/a/b"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/a/b"), OutputError, "/a/b"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), OutputError, "disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/a/b"), OutputError, "disk is full"),
        (OSError("something else"), OutputError, "something else"),
        (
            httpx.ConnectError("refused", request=httpx.Request("GET", "http://127.0.0.1:1/api")),
            ServiceError,
            "127.0.0.1:1",
        ),
        (httpx.ReadTimeout("timed out"), ServiceError, "timed out"),
        (
            RuntimeError("Timed out while attempting to connect to ephemeral Prefect API server."),
            ServiceError,
            "Prefect",
        ),
        (sqlite3.OperationalError("database is locked"), TrackingError, "database is locked"),
        (ModuleNotFoundError("no torch", name="torch.nn"), AgepipeError, "torch.nn"),
        (AgepipeError("as it is"), AgepipeError, "as it is"),
    ],
)
def test_errors_of_other_libraries_become_ours(error: Exception, kind: type[AgepipeError], part: str) -> None:
    found = failures.understood(error)
    assert type(found) is kind
    assert part in str(found) and "\n" not in str(found)


@pytest.mark.parametrize("kind", [CancelledRun, CrashedRun, ParameterTypeError, MissingResult])
def test_what_prefect_says_of_a_run_is_no_fault_of_its_server(kind: type[Exception]) -> None:
    found = failures.understood(kind("of the run:\n  config.dropout"))
    assert type(found) is ServiceError
    assert "of the run: config.dropout" in str(found)
    assert "request" not in str(found)


@pytest.mark.parametrize("fault", [ValueError("x"), KeyError("x"), ModuleNotFoundError("x", name="agepipe.nothing")])
def test_a_fault_of_our_own_keeps_its_traceback(fault: Exception) -> None:
    assert failures.understood(fault) is None


def test_an_unknown_command_is_refused(tmp_path: Path) -> None:
    done = agepipe(tmp_path, "trian")
    assert done.returncode == 2
    assert "trian" in done.stderr


def test_down_without_up_ends_nothing(tmp_path: Path) -> None:
    done = agepipe(tmp_path, "down")
    assert (done.returncode, done.stdout.strip()) == (0, "Nothing was running.")
