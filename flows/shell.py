"""The shell that a command was started from: its proxies and its terminal. Imports nothing heavy: the help needs it."""

import os
import sys
from importlib.util import find_spec
from io import TextIOWrapper
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine, to which no proxy leads."""
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def bypass_proxies() -> None:
    """Let requests to this machine reach it whatever proxy is set, in this process and its children."""
    for name in ("no_proxy", "NO_PROXY"):
        known = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        if known != ["*"]:
            os.environ[name] = ",".join([*known, *(host for host in LOOPBACK if host not in known)])


def drop_proxies() -> None:
    """Leave out proxies that Prefect's client cannot speak to: it fails on them even where it needs none."""
    spoken = {"", "http", "https"} | ({"socks5", "socks5h"} if find_spec("socksio") else set())
    for name in [name for name in os.environ if name.lower() in PROXIES]:
        value = os.environ[name]
        if "://" in value and urlsplit(value).scheme.lower() not in spoken:
            del os.environ[name]


def readable() -> None:
    """Show a question mark for what the terminal's encoding does not have, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
