import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from agepipe.core.errors import DataError, TrainingError, WorkerError
from agepipe.training.worker import THREAD_WAITING, interrupt, isolated, resume, warm


def double(value: int) -> int:
    return 2 * value


def count(to: int, on_event: Callable[[int], None]) -> str:
    for number in range(to):
        on_event(number)
    return "done"


def where_am_i() -> tuple[int, bool, str]:
    return os.getpid(), "torch" in sys.modules, repr(sys.modules["__main__"])


def late_imports() -> set[str]:
    return {"torchvision"} - set(sys.modules)


def refuse() -> None:
    raise DataError("pixels.npy: 3 rows, 4 expected; run the ingest again.")


def fail() -> None:
    raise ZeroDivisionError("nothing to divide by")


def fill() -> None:
    Path("/dev/full").write_text("more than there is room for")


def leave(code: int) -> None:
    os._exit(code)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def warn() -> None:
    logging.getLogger("agepipe.training.objective").warning("learn.l1: too %s", "large")


def draw() -> float:
    import torch

    torch.manual_seed(1)
    time.sleep(0.05)
    return float(torch.rand(()))


def sleep_for_ever(note: str) -> None:
    Path(note).write_text(str(os.getpid()))
    time.sleep(600)


def test_the_result_comes_back_from_another_process_that_has_torch_already() -> None:
    pid, torch, _ = isolated(where_am_i)
    assert pid != os.getpid()
    assert torch
    assert isolated(double, 21) == 42


def test_what_takes_long_to_import_is_there_before_the_work_begins() -> None:
    warm()
    assert isolated(late_imports) == set()
    assert "torchvision" not in _loaded_by("agepipe.training.worker")


def _loaded_by(module: str) -> str:
    code = f"import sys, {module}; print(sorted(sys.modules))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_main_module_is_not_run_again() -> None:
    # multiprocessing names the copy of a main module that it ran again __mp_main__
    assert "pytest" not in isolated(where_am_i)[2]


def test_events_arrive_in_order_before_the_result() -> None:
    seen: list[int] = []
    assert isolated(count, 5, on_event=seen.append) == "done"
    assert seen == [0, 1, 2, 3, 4]


def test_an_error_of_ours_keeps_its_class_and_message() -> None:
    with pytest.raises(DataError, match=r"pixels\.npy: 3 rows"):
        isolated(refuse)


def test_any_other_error_becomes_a_worker_error_with_its_last_line() -> None:
    with pytest.raises(WorkerError, match="ZeroDivisionError: nothing to divide by") as caught:
        isolated(fail)
    assert "in fail" in "".join(caught.value.__notes__)


def test_a_full_disk_is_one_sentence() -> None:
    with pytest.raises(TrainingError, match=r"^the disk is full.*; make room, then give the same command again"):
        isolated(fill)


@pytest.mark.parametrize(("ending", "args", "how"), [(leave, (3,), "exit status 3"), (die, (), "SIGKILL")])
def test_a_process_that_dies_says_how(ending: Callable[..., None], args: tuple[int, ...], how: str) -> None:
    with pytest.raises(WorkerError, match=how):
        isolated(ending, *args)


def test_a_warning_of_the_work_is_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    isolated(warn)
    assert ("agepipe.training.objective", logging.WARNING, "learn.l1: too large") in caplog.record_tuples


def test_threads_do_not_share_random_state() -> None:
    with ThreadPoolExecutor(4) as pool:
        draws = list(pool.map(lambda _: isolated(draw), range(8)))
    assert len(set(draws)) == 1


def test_the_work_is_ended_when_its_watcher_fails() -> None:
    def complain(_: int) -> None:
        raise KeyError("watcher")

    before = threading.active_count()
    with pytest.raises(KeyError):
        isolated(count, 3, on_event=complain)
    assert threading.active_count() == before


@pytest.mark.slow
def test_the_work_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_worker import sleep_for_ever
        from agepipe.training.worker import isolated
        isolated(sleep_for_ever, {str(note)!r})
        """)
    )
    parent = subprocess.Popen([sys.executable, str(script)])
    _until(lambda: note.exists() and note.read_text() != "", 120)
    child = psutil.Process(int(note.read_text()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 10)


def test_the_parent_does_not_import_torch() -> None:
    code = "import agepipe.training.worker, agepipe.training.job, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("own", "expected"), [({}, ("PASSIVE", "5000")), ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", "None"))]
)
@pytest.mark.slow
def test_threads_wait_for_each_other_as_the_user_says_or_awake_but_briefly(
    own: dict[str, str], expected: tuple[str, str]
) -> None:
    code = """
    import os
    from agepipe.training.worker import THREAD_WAITING, isolated
    print(*(isolated(os.getenv, name) for name in THREAD_WAITING), *THREAD_WAITING.keys() & os.environ.keys())
    """
    environ = {name: value for name, value in os.environ.items() if name not in THREAD_WAITING} | own
    said = subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], env=environ, text=True)
    assert said.split() == [*expected, *own], "and the caller's own environment is as it was"


def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_an_interrupt_ends_the_work_of_all_threads_and_what_would_follow(tmp_path: Path) -> None:
    """Two trials at a time, and a third that waits for its turn."""
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(isolated, sleep_for_ever, str(tmp_path / str(number))) for number in range(3)]
        while len(list(tmp_path.iterdir())) < 2:
            assert not any(one.done() for one in asked)
            time.sleep(0.01)
        begun = time.monotonic()
        interrupt()
        try:
            assert [type(one.exception(timeout=10)) for one in asked] == [KeyboardInterrupt] * 3
        finally:
            resume()
    assert time.monotonic() - begun < 5
    assert len(list(tmp_path.iterdir())) == 2
    assert isolated(double, 4) == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_of_a_group_is_the_parents_alone(number: signal.Signals) -> None:
    """As of Ctrl-C in a terminal, or of Prefect's worker that cancels: the work and its fork server are not ended."""
    assert isolated(survived, number) == "still here"
    assert isolated(double, 3) == 6


def survived(number: int) -> str:
    for one in (os.getppid(), os.getpid()):
        os.kill(one, number)
    time.sleep(0.2)
    return "still here"
