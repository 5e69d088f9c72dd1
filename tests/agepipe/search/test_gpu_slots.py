import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from holders import order_around_a_kill

from agepipe.config.runtime import Runtime
from agepipe.search.gpu_slots import gpu_slot, slot


def test_trials_at_once_are_gpus_times_the_limit_and_spread_evenly(tmp_path: Path) -> None:
    now: Counter[int] = Counter()
    most: Counter[int] = Counter()
    together, lock = [0], threading.Lock()

    def trial(_: int) -> None:
        with slot(2, 2, tmp_path) as gpu:
            with lock:
                now[gpu] += 1
                most[gpu] = max(most[gpu], now[gpu])
                together[0] = max(together[0], now.total())
            time.sleep(0.3)
            with lock:
                now[gpu] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(trial, range(8)))
    assert most == {0: 2, 1: 2}
    assert together == [4]


def test_a_slot_is_free_again_after_an_error(tmp_path: Path) -> None:
    for _ in range(3):
        try:
            with slot(1, 1, tmp_path) as gpu:
                raise ValueError(gpu)
        except ValueError as error:
            assert error.args == (0,)


def test_a_slot_is_free_again_when_its_process_is_killed(tmp_path: Path) -> None:
    assert order_around_a_kill(partial(slot, 1, 1, tmp_path)) == ["killed", "entered"]


def test_workers_of_a_running_cluster_share_the_slots_of_their_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prefect_dask", reason="needs agepipe[dask]")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runtime = Runtime(device="cpu", workers=1, runner="dask", scheduler="tcp://here:8786")
    order: list[str] = []

    def second() -> None:
        with gpu_slot(runtime):
            order.append("second")

    waiting = threading.Thread(target=second)
    with gpu_slot(runtime) as gpu:
        waiting.start()
        time.sleep(0.5)
        order.append("first")
    waiting.join(10)
    assert (gpu, order) == (None, ["first", "second"])


def test_without_a_gpu_a_trial_waits_for_nothing() -> None:
    with gpu_slot(Runtime(device="cpu")) as first, gpu_slot(Runtime(device="cpu")) as second:
        assert first is second is None
