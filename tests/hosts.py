"""Hosts on this machine: network namespaces, each with an address, a name, and a home that no other host sees."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from commands import environ

from flows import services

SUBNET = "10.213.77"
"""First three numbers of the addresses; they exist in the namespaces alone."""
LOG = "log.txt"


class Host:
    """A host; what is started on it sees its own network and, of the hosts' homes, only its own."""

    def __init__(self, name: str, namespace: str, address: str, folder: Path) -> None:
        self.name, self.address, self.home = name, address, folder / name
        self._namespace, self._folder = namespace, folder
        self.home.mkdir(parents=True)
        self.variables: dict[str, str] = {"HOME": str(self.home), "TMPDIR": str(self.home)}

    def command(self, words: tuple[object, ...], as_root: bool = True) -> list[str]:
        """The words with which this machine runs a command on the host, in its home."""
        hidden = [f"mount -t tmpfs -o ro none {path}" for path in self._folder.iterdir() if path != self.home]
        script = " && ".join([f"hostname {self.name}", *hidden, f"cd {self.home}", 'exec "$@"'])
        entered = ["ip", "netns", "exec", self._namespace, "unshare", "--mount", "--uts", "sh", "-c", script, "sh"]
        given_up = [] if as_root else ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
        return [*entered, *given_up, *map(str, words)]

    @contextmanager
    def running(
        self, *words: object, as_root: bool = True, output: int | None = None, **variables: str
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """A process of the host while the block runs; what it prints is in `log`, unless `output` takes it."""
        with (self.home / LOG).open("ab") as log:
            process = subprocess.Popen(
                self.command(words, as_root), env=self._environ(variables), stdout=output or log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                services.end_family(psutil.Process(process.pid))
            process.wait(60)

    def run(
        self, *words: object, as_root: bool = True, timeout: float = 600, **variables: str
    ) -> "subprocess.CompletedProcess[str]":  # fmt: skip
        """Run a command on the host to its end."""
        return subprocess.run(
            self.command(words, as_root), env=self._environ(variables), capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip

    def does(self, *words: object, as_root: bool = True, **variables: str) -> str:
        """What a command prints that must succeed."""
        done = self.run(*words, as_root=as_root, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def log(self) -> str:
        """The last that the processes of this host have printed."""
        return (self.home / LOG).read_text(errors="replace")[-8000:]

    def _environ(self, variables: Mapping[str, str]) -> dict[str, str]:
        return {**environ(), **self.variables, **variables}


@contextmanager
def network(folder: Path, *names: str) -> Iterator[list[Host]]:
    """Hosts of these names in one network; the test is skipped where network namespaces may not be made."""
    if not shutil.which("ip") or os.geteuid() != 0:
        pytest.skip("needs network namespaces: the command ip, and root")
    switch = f"agepipe-{os.getpid()}-switch"
    try:
        _ip("netns", "add", switch)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs network namespaces, which may not be made here: {error.stderr.strip()}")
    with ExitStack() as ending:
        ending.callback(_ip, "netns", "del", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        hosts = []
        for number, name in enumerate(names, 1):
            namespace, address, port = f"agepipe-{os.getpid()}-{name}", f"{SUBNET}.{number}", f"port{number}"
            _ip("netns", "add", namespace)
            ending.callback(_ip, "netns", "del", namespace)
            _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            _ip("-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", namespace, "link", "set", device, "up")
            hosts.append(Host(name, namespace, address, folder))
        yield hosts


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
