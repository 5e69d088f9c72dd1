"""The command line as its user meets it: a real process, its exit code and what it says. No Prefect server starts."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agepipe import presets
from flows import cli

AGEPIPE = Path(sys.executable).with_name("agepipe")
COMMANDS = (
    "run", "evaluate", "compare", "release", "audit", "import", "promote", "rollback", "up", "down", "predict",
    "deploy", "camera",
)  # fmt: skip
HELP_LIMIT = 0.5
"""Seconds that the help may take."""


def agepipe(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([AGEPIPE, *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def seconds_for_help(cwd: Path) -> tuple[float, float]:
    """Seconds on the clock and seconds of the processor."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    assert agepipe("--help", cwd=cwd).returncode == 0
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_answers_at_once(tmp_path: Path) -> None:
    wall, processor = (min(seconds) for seconds in zip(*[seconds_for_help(tmp_path) for _ in range(5)], strict=True))
    assert processor < HELP_LIMIT
    # On a machine with more work than cores the clock says how busy it is, not how long the help takes.
    if os.getloadavg()[0] < (os.cpu_count() or 1):
        assert wall < HELP_LIMIT


def test_the_help_needs_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, flows.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"prefect", "mlflow", "torch", "polars", "numpy", "cv2", "sklearn"} & set(done.stdout.split())


def test_the_flows_import_nothing_that_only_computing_needs(tmp_path: Path) -> None:
    flows = "flows.pipeline, flows.evaluate, flows.compare, flows.release"
    code = f"import sys, {flows}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"mlflow", "torch", "sklearn", "scipy", "matplotlib", "pandas", "optuna", "dask", "distributed"} & set(
        done.stdout.split()
    )


def test_help_names_every_command(tmp_path: Path) -> None:
    said = agepipe("--help", cwd=tmp_path).stdout
    assert all(command in said for command in COMMANDS)
    assert "agepipe run sample" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command: str, tmp_path: Path) -> None:
    done = agepipe(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"Example: agepipe {command}" in done.stdout


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("run", "lapptop"), ("preset: 'lapptop' is not known", *presets.names())),
        (("run", "sample", "search.fold=3"), ("there is no field 'search.fold'", "nearest is 'search.folds'")),
        (("run", "sample", "serch.folds=3"), ("there is no field 'serch.folds'", "nearest is 'search.folds'")),
        (("run", "sample", "search.folds=1"), ("'search.folds' is 1", "greater than or equal to 2")),
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
    ],
)
def test_an_error_is_one_sentence(words: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path) -> None:
    done = agepipe(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert [part for part in parts if part not in done.stderr] == []
    assert "Traceback" not in done.stdout + done.stderr


def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "app", lambda: Path("/dev/full").write_text("more than there is room for"))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = "error: the disk is full; make room, then give the same command again: it goes on from what is finished.\n"
    assert (ended.value.code, capsys.readouterr().err) == (1, said)


def test_a_refused_run_leaves_nothing_behind(tmp_path: Path) -> None:
    assert agepipe("run", "sample", "search.fold=3", cwd=tmp_path).returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_command_is_refused(tmp_path: Path) -> None:
    done = agepipe("trian", cwd=tmp_path)
    assert done.returncode == 2
    assert "trian" in done.stderr


def test_down_without_up_ends_nothing(tmp_path: Path) -> None:
    done = agepipe("down", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "Nothing was running.")
