"""Hosts that share a training and only a bucket: two network namespaces, each with its own home, joined by a cable."""

import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
import psutil
import pytest
import torch
from commands import AGEPIPE, environ, free_port, lives

from agepipe.model.bundle import CURVES

pytest.importorskip("lightning_fabric", reason="needs the extra distributed")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

RUN = (
    "run", "sample", "ingest.size=36", "learn.size=32", "learn.network=shufflenet_v2_x0_5", "learn.batch=32",
    "search.grid={}", "evaluate.draws=200", "--device", "cpu", "--workers", "1",
)  # fmt: skip
TORCHRUN = Path(sys.executable).with_name("torchrun")
LONG = 900.0
"""Seconds that a run may take on a busy machine."""


class Host:
    """A machine with a home and a working folder; in a network namespace of its own if it has a name."""

    def __init__(self, folder: Path, bucket: Path, namespace: str = "", address: str = "") -> None:
        self.folder, self.namespace, self.address = folder, namespace, address
        folder.mkdir(parents=True, exist_ok=True)
        self.variables = {**environ(), "HOME": str(folder), "AGEPIPE_WORKSPACE": f"file://{bucket}"}
        self.variables |= {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600"}

    def start(self, *command: object, variables: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        inside = ("ip", "netns", "exec", self.namespace) if self.namespace else ()
        return subprocess.Popen(
            [*inside, *map(str, command)], cwd=self.folder, env={**self.variables, **(variables or {})}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def torchrun(self, main: "Host", *words: str) -> "subprocess.Popen[str]":
        """Start torchrun; it is told what it asks the name of the machine for, which is the same in all namespaces."""
        return self.start(
            TORCHRUN, "--nnodes", 2, "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--rdzv-id", "faces",
            "--rdzv-endpoint", f"{main.address}:29400", "--rdzv-conf", f"is_host={int(self is main)}",
            "--local-addr", self.address, "--no-python", AGEPIPE, *words,
        )  # fmt: skip

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights of the one model in the cache of this host."""
        (path,) = self.folder.glob(".cache/agepipe/*/models/[!.]*/network.pt")
        return torch.load(path, weights_only=True)  # type: ignore[no-any-return]

    def saved_seconds(self) -> list[float]:
        """The duration of each epoch until the checkpoint of this host."""
        (path,) = self.folder.glob(".cache/agepipe/*/models/.*-progress/**/checkpoint.pt")
        return [row["seconds"] for row in torch.load(path, weights_only=True)["curves"]]

    def seconds(self) -> list[float]:
        """The duration of each epoch of the one model in the cache of this host."""
        (path,) = self.folder.glob(f".cache/agepipe/*/models/[!.]*/{CURVES}")
        return pl.read_parquet(path)["seconds"].to_list()

    def has_saved(self, since: float) -> bool:
        """Whether an epoch was saved after a moment, in seconds since 1970."""
        saved = self.folder.glob(".cache/agepipe/*/models/.*-progress/**/checkpoint.pt")
        return any(path.stat().st_mtime > since for path in saved)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """Two machines that reach each other and nothing else; they share a folder that stands for a bucket."""
    ip = shutil.which("ip")
    if ip is None:
        pytest.skip("needs the command ip (iproute2)")
    name = f"torchrun-{uuid.uuid4().hex[:6]}"
    names, ends = [f"{name}-{number}" for number in (1, 2)], [f"v{name[-6:]}{number}" for number in (1, 2)]
    try:
        done = subprocess.run([ip, "netns", "add", names[0]], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"this user may make no network namespace: {done.stderr.strip()}")
        subprocess.run([ip, "netns", "add", names[1]], check=True)
        cable = [ip, "link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1]]
        subprocess.run([*cable, "netns", names[1]], check=True)
        for number, (namespace, end) in enumerate(zip(names, ends, strict=True), 1):
            for words in (
                ("addr", "add", f"10.77.0.{number}/24", "dev", end), ("link", "set", end, "up"),
                ("link", "set", "lo", "up"),
            ):  # fmt: skip
                subprocess.run([ip, "-n", namespace, *words], check=True)
        one, two = (
            Host(tmp_path / f"host{number}", tmp_path / "bucket", namespace, f"10.77.0.{number}")
            for number, namespace in enumerate(names, 1)
        )
        yield one, two
    finally:
        for namespace in names:
            end_all(namespace)
            subprocess.run([ip, "netns", "del", namespace], capture_output=True, check=False)


def end_all(namespace: str) -> None:
    """End a host as a power cut would."""
    found = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    members = [psutil.Process(int(pid)) for pid in found.stdout.split() if psutil.pid_exists(int(pid))]
    for member in members:
        if lives(member):
            member.kill()
    psutil.wait_procs(members, 30)


def said(process: "subprocess.Popen[str]", timeout: float = LONG) -> str:
    output, _ = process.communicate(timeout=timeout)
    return output


def succeed(*processes: "subprocess.Popen[str]") -> list[str]:
    outputs = [said(process) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)
    return outputs


def sentence(output: str) -> str:
    (line,) = (line for line in output.splitlines() if line.startswith("error: "))
    return line


def test_two_hosts_train_to_the_weights_of_two_processes_of_one(
    hosts: tuple[Host, Host], drawn: Path, tmp_path: Path
) -> None:
    one, two = hosts
    run = (*RUN, "final.epochs=2", "--data", str(drawn))
    _, other = succeed(*(host.torchrun(one, *run, "--threads", "1") for host in hosts))
    assert "in 1 training" in other
    assert not list(two.folder.glob("mlruns")), "rank 0 alone tracks"
    assert [path.name for path in two.folder.glob(".cache/agepipe/*/*")] == ["datasets"]

    alone = Host(tmp_path / "alone", tmp_path / "bucket")
    succeed(alone.start(AGEPIPE, *run, "--threads", "2", "--processes", "2", "--refresh", "train"))
    expected, found = alone.weights(), one.weights()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in found)

    # what is left to do is cached, so the other rank ends without a training; and other launchers start the same
    port = str(free_port())
    plain = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    slurm = {
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NODELIST": "localhost",
        "SLURM_JOB_NAME": "faces", "SLURM_JOB_ID": str(int(port) - 15000 if int(port) > 15000 else 4711),
        "SLURM_LOCALID": "0",
    }  # fmt: skip
    ranks = [Host(tmp_path / f"rank{rank}", tmp_path / "bucket") for rank in (0, 1)]
    for variables in (
        [{**plain, "RANK": str(rank)} for rank in (0, 1)],
        [{**slurm, "SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)} for rank in (0, 1)],
    ):
        _, other = succeed(
            *(
                host.start(AGEPIPE, *run, "--threads", "1", variables=own)
                for host, own in zip(ranks, variables, strict=True)
            )
        )
        assert "in 0 trainings" in other


def await_epoch(host: Host, process: "subprocess.Popen[str]") -> None:
    """Wait until another epoch is saved."""
    since = time.time()
    while not host.has_saved(since):
        assert process.poll() is None, said(process)
        assert time.time() < since + LONG
        time.sleep(0.1)


def test_when_a_host_dies_the_other_says_so_and_the_same_commands_go_on(
    hosts: tuple[Host, Host], drawn: Path, tmp_path: Path
) -> None:
    one, two = hosts
    run = (*RUN, "final.epochs=20", "--data", str(drawn), "--threads", "1")
    for dies, stays in ((two, one), (one, two)):
        processes = {host: host.torchrun(one, *run) for host in hosts}
        await_epoch(one, processes[one])
        end_all(dies.namespace)
        output = said(processes[stays], 300)
        said(processes[dies])
        assert processes[stays].returncode == 1
        if stays is one:  # otherwise torchrun itself misses its store first, and ends the rank
            assert "run the same command again" in sentence(output)
    saved = one.saved_seconds()
    succeed(*(host.torchrun(one, *run) for host in hosts))
    assert one.seconds()[: len(saved)] == saved, "it resumes from the last checkpoint"

    alone = Host(tmp_path / "alone", tmp_path / "bucket")
    words = (*run[:-2], "--threads", "2", "--processes", "2", "--refresh", "train")
    succeed(alone.start(AGEPIPE, *words))
    expected, found = alone.weights(), one.weights()
    assert all(torch.equal(expected[name], found[name]) for name in found)
