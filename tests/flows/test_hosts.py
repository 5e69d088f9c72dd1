"""A team on three hosts that share nothing but the servers on the first: PostgreSQL, an object store, MLflow, Prefect.

The hosts are network namespaces of this machine, each with a home of its own.
"""

import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from bundles import SIZE, pictures
from commands import AGEPIPE
from hosts import Host, network
from team import PYTHON, Team

CONFIG = {
    "preset": "sample", "source": {"data": ["sample"]}, "ingest": {"size": 36},
    "learn": {"size": 32, "network": "shufflenet_v2_x0_5", "batch": 32, "epochs": 1},
    "search": {"grid": {"lr": [0.003, 0.01]}, "folds": 2}, "final": {"epochs": 2}, "evaluate": {"draws": 200},
}  # fmt: skip
KINDS = """
import json
from agepipe.config.runtime import Runtime
from agepipe.registry import tracking
runs = tracking.client(Runtime()).search_runs([tracking.prepare(Runtime())], max_results=1000)
kinds = [run.data.tags["agepipe.kind"] for run in runs if run.info.status == "FINISHED"]
print(json.dumps([kind for kind in kinds if kind in ("trial", "train", "evaluate", "compare")]))
"""
VERSIONS = """
import json
from agepipe.config.runtime import Runtime
from agepipe.registry.lookup import versions
found = versions("agepipe", Runtime())
print(json.dumps([[one.number, list(one.aliases), one.pending is not None] for one in found]))
"""
ALONE = """
import json, sys
from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config
from flows.pipeline import pipeline
pipeline(Config.model_validate(json.loads(sys.argv[1])), Runtime.model_validate(json.loads(sys.argv[2])))
"""
OUTAGE = 5.0
"""Seconds for which a server is away."""


class Hosts(NamedTuple):
    team: Team
    a: Host
    b: Host
    c: Host


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """The servers are on A, and a worker of Prefect and one of Dask each on B and C."""
    with network(tmp_path_factory.mktemp("hosts"), "a", "b", "c") as (a, b, c), Team(a, b, c) as team:
        for host in (b, c):
            team.start_worker(host)
            team.start_dask(host)
        yield Hosts(team, a, b, c)


RUNTIME = {"device": "cpu", "workers": 2, "threads": 1}


def _results(host: Host, kind: str, file: str) -> dict[str, bytes]:
    """A file of each finished result of a kind on a host, by the name of the result."""
    found = host.home.glob(f".cache/agepipe/*/{kind}/[!.]*/{file}")
    return {path.parent.name: path.read_bytes() for path in found}


def _figures(path: Path) -> dict[str, Any]:
    """All of an evaluation but its duration."""
    found: dict[str, Any] = json.loads(path.read_text())
    del found["metrics"]["seconds"]
    return found


def _work(host: Host) -> Counter[str]:
    """How often each kind of work was finished, on all hosts; the run of a killed trial never is."""
    return Counter(json.loads(host.does(PYTHON, "-c", KINDS)))


def _search(team: Team) -> dict[str, str]:
    return {"runner": "dask", "scheduler": team.scheduler}


def _until(what: Callable[[], object], seconds: float = 300) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_on_one_host_searches_on_two_with_the_figures_of_one_machine(hosts: Hosts) -> None:
    team, a, b, c = hosts
    team.trigger("pipeline/weekly", "b", config=CONFIG, runtime={**RUNTIME, **_search(team)})
    assert _work(a) == {"trial": 4, "train": 1, "evaluate": 1}
    assert 1 <= len(_results(c, "trials", "manifest.json")) <= 3, "B and C shared the trials"
    assert not _results(a, "*", "manifest.json"), "the first host computes nothing"
    alone = {"AGEPIPE_WORKSPACE": "alone", "AGEPIPE_TRACKING": "sqlite:///alone.db"}
    a.does(PYTHON, "-c", ALONE, json.dumps(CONFIG), json.dumps(RUNTIME), **alone)
    (expected,) = a.home.glob("alone/evaluations/*/metrics.json")
    (found,) = b.home.glob(".cache/agepipe/*/evaluations/*/metrics.json")
    assert found.parent.name == expected.parent.name
    assert _figures(found) == _figures(expected)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_third_host_evaluates_and_computes_nothing_again(hosts: Hosts) -> None:
    team, a, b, c = hosts
    before = _work(a)
    team.trigger("evaluate/evaluate", "c", settings=CONFIG["evaluate"])
    assert _work(a) == before
    assert _results(c, "evaluations", "metrics.json") == _results(b, "evaluations", "metrics.json")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_ends_right_though_a_worker_is_killed_and_the_servers_are_restarted(hosts: Hosts) -> None:
    team, a, b, _ = hosts
    before = _work(a)
    longer = {**CONFIG, "learn": {**CONFIG["learn"], "epochs": 4}, "final": {"epochs": 20}}
    with team.triggered("pipeline/weekly", "b", config=longer, runtime={**RUNTIME, **_search(team)}) as completed:
        cache = next(b.home.glob(".cache/agepipe/*"))
        _until(lambda: list(cache.glob("trials/.*-progress/result-partial/checkpoint.pt")))
        team.stop("dask b")
        _until(lambda: list(cache.glob("models/.*-progress/result-partial/checkpoint.pt")))
        team.stop("postgres", signal.SIGINT)  # its fast shutdown, which ends all connections
        time.sleep(OUTAGE)
        team.start_postgres()
        team.stop("way")
        time.sleep(OUTAGE)
        team.start_way()
        completed()
    assert _work(a) - before == {"trial": 4, "train": 1, "evaluate": 1}
    team.start_dask(b)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_promotion_on_one_host_reaches_the_camera_of_another(hosts: Hosts) -> None:
    team, a, b, _ = hosts
    a.does(AGEPIPE, "promote", 2, "--because", "a longer training", "--no-deploy")
    team.trigger("deploy/deploy", "b")
    cv2.imwrite(str(b.home / "face.png"), pictures(np.array([30]), SIZE, seed=1, noise=0.01)[0])
    said = b.does(AGEPIPE, "camera", "--source", "face.png", "--headless", "--output", "seen.png")
    assert "version 2" in said
    assert (b.home / "seen.png").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_promotions_that_race_from_two_hosts_follow_each_other(hosts: Hosts) -> None:
    _, a, b, c = hosts
    words = ("--because", "a race", "--no-deploy")
    with ExitStack() as racing:
        started = [
            racing.enter_context(host.running(AGEPIPE, "promote", version, *words))
            for host, version in ((b, 1), (c, 2), (b, 2), (c, 1))
        ]
        assert [process.wait(300) for process in started] == [0, 0, 0, 0]
    found = json.loads(a.does(PYTHON, "-c", VERSIONS))
    assert sorted(number for number, _, _ in found) == [1, 2]
    assert [aliases for _, aliases, _ in found].count(["champion"]) == 1
    assert not any(unfinished for _, _, unfinished in found)
