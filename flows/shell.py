"""Proxies and the terminal of the shell that a command was started from. Imports nothing slow: `--help` needs it."""

import os
import sys
from importlib.util import find_spec
from io import TextIOWrapper
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine; requests to them bypass proxies."""

PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def bypass_proxies(address: str | None = None) -> None:
    """Exclude this machine from any proxy, for this process and its children.

    Args:
        address: another address of this machine, at which a server of its own listens.
    """
    ours = (*LOOPBACK, address) if address else LOOPBACK
    for name in ("no_proxy", "NO_PROXY"):
        known = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        if known != ["*"]:
            os.environ[name] = ",".join([*known, *(host for host in ours if host not in known)])


def drop_proxies() -> None:
    """Remove proxies that the Prefect client does not support: it fails on them even when it needs none."""
    spoken = {"", "http", "https"} | ({"socks5", "socks5h"} if find_spec("socksio") else set())
    for name in [name for name in os.environ if name.lower() in PROXIES]:
        value = os.environ[name]
        if "://" in value and urlsplit(value).scheme.lower() not in spoken:
            del os.environ[name]


def readable() -> None:
    """Print a question mark for characters that the terminal's encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
