"""Builds the images of the `Dockerfile` without a container engine: each step runs in a chroot of a Debian root."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CERTIFICATES = "/opt/certificates.crt"
"""Where those of a proxy lie that this machine is behind; installing Debian's own would replace them elsewhere."""


@dataclass(frozen=True)
class Image:
    """A file system and what the instructions say of it."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    folder: str = "/"
    command: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()

    def start(self, *words: str, **environ: str) -> "subprocess.Popen[str]":
        """A process in it, with the network of this machine and process numbers of its own."""
        home = "/root" if self.user == "root" else f"/home/{self.user}"
        known = {"PATH": "/usr/sbin:/usr/bin", "HOME": home, "LANG": "C.UTF-8", **_proxied(), **self.environ, **environ}
        inside = ["env", "-i", *(f"{name}={value}" for name, value in known.items()), "sh", "-c"]
        inside += [f"cd {self.folder} && exec {shlex.join(words)}"]
        chroot = shlex.join(["chroot", f"--userspec={self.user}:{self.user}", str(self.root), *inside])
        return subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "sh", "-c",
             f"mount -t proc proc {self.root}/proc; exec {chroot}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, *words: str, **environ: str) -> str:
        """What a command in it prints; it must succeed."""
        status, said = self.ended(*words, **environ)
        assert status == 0, f"{shlex.join(words)}\n{said[-3000:]}"
        return said

    def ended(self, *words: str, **environ: str) -> tuple[int, str]:
        """The status of a command in it, and what it prints."""
        process = self.start(*words, **environ)
        try:
            said, _ = process.communicate(timeout=1200)
        finally:
            end(process)
        return process.returncode, said


def end(process: "subprocess.Popen[str]") -> None:
    """Kill a process of an image with its children; nothing happens if it has ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _proxied() -> dict[str, str]:
    """How to get through a proxy that this machine is behind."""
    names = [name for name in ("http_proxy", "https_proxy", "no_proxy") if name in os.environ]
    own = {"SSL_CERT_FILE": CERTIFICATES, "PIP_CERT": CERTIFICATES} if "SSL_CERT_FILE" in os.environ else {}
    return {**{name: os.environ[name] for name in names}, **own}


def build(target: str, folder: Path, **arguments: str) -> Image:
    """The image of a target, with the stages that it needs; arguments are those of `--build-arg`."""
    for tool in ("mmdebstrap", "unshare", "chroot"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if os.geteuid():
        pytest.skip("only root can change into a root")
    return Builder(folder, arguments).image(target)


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, `FROM` first."""
    text = (ROOT / "Dockerfile").read_text()
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    found: dict[str, list[tuple[str, str]]] = {}
    for word, _, rest in (line.strip().partition(" ") for line in lines if line.strip()):
        if word == "FROM":
            current = found.setdefault(rest.split(" AS ")[1], [])
        current.append((word, rest.strip()))
    return found


class Builder:
    """Builds each stage once."""

    def __init__(self, folder: Path, arguments: dict[str, str]) -> None:
        """Build into a folder."""
        self._folder, self._arguments, self._done = folder, arguments, dict[str, Image]()

    def image(self, name: str) -> Image:
        """The image of a stage, or of a Debian."""
        if name not in self._done:
            root = self._folder / name.replace(":", "-")
            steps = stages().get(name)
            self._done[name] = self._staged(root, steps) if steps else Image(_debian(name, root))
        return self._done[name]

    def _staged(self, root: Path, steps: list[tuple[str, str]]) -> Image:
        (_, source), *others = steps
        below = self.image(source.split(" AS ")[0])
        subprocess.run(["cp", "--archive", "--reflink=auto", below.root, root], check=True)
        image, given = replace(below, root=root), dict[str, str]()
        for word, rest in others:
            if word == "ARG":
                option, _, default = rest.partition("=")
                given[option] = self._arguments.get(option, default)
            elif word == "RUN":
                image.run("sh", "-c", rest, **given)
            elif word == "COPY":
                self._copy(image, rest.split())
            else:
                image = _described(image, word, rest)
        return image

    def _copy(self, image: Image, words: list[str]) -> None:
        *sources, to = words
        context = self.image(sources.pop(0).removeprefix("--from=")).root if sources[0].startswith("--from=") else ROOT
        target = image.root / (Path(image.folder) / to).relative_to("/")
        for source in sources:
            found = context / source.lstrip("/")
            if found.is_dir():
                shutil.copytree(found, target, symlinks=True, ignore=_bytecode if context == ROOT else None)
            else:
                shutil.copy(found, target / found.name)


def _described(image: Image, word: str, rest: str) -> Image:
    """The image after an instruction that changes no file."""
    if word == "ENV":
        path = image.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        new = dict(pair.replace("$PATH", path).split("=", 1) for pair in rest.split())
        return replace(image, environ={**image.environ, **new})
    if word == "WORKDIR":
        (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        return replace(image, folder=rest)
    if word == "HEALTHCHECK":
        return replace(image, probe=tuple(json.loads(rest.split(" CMD ")[1])))
    if word == "CMD":
        return replace(image, command=tuple(json.loads(rest)))
    assert word in ("USER", "EXPOSE"), f"{word} is not understood by the tests"
    return replace(image, user=rest) if word == "USER" else image


_bytecode = shutil.ignore_patterns("__pycache__")


def _debian(name: str, root: Path) -> Path:
    """The root of `debian:SUITE-slim`, or rather the packages that every Debian has."""
    suite = re.fullmatch(r"debian:(\w+)-slim", name)
    assert suite, f"the Dockerfile builds upon {name}, which is not a Debian"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", suite[1], root], check=True, capture_output=True)
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    if "SSL_CERT_FILE" in os.environ:
        shutil.copy(os.environ["SSL_CERT_FILE"], root / CERTIFICATES.lstrip("/"))
    return root
