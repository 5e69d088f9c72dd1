"""Running a command that file permissions bind, also where the tests run as root."""

import os
import shutil
import subprocess

import pytest

DROPPED = "-dac_override,-dac_read_search"


def unprivileged() -> list[str]:
    """The words before such a command; skips where there is no way to make one."""
    if os.geteuid() != 0:
        return []
    words = ["setpriv", f"--bounding-set={DROPPED}", f"--inh-caps={DROPPED}"]
    if shutil.which("setpriv") and subprocess.run([*words, "true"], check=False).returncode == 0:
        return words
    pytest.skip("permissions do not bind root, and setpriv cannot give its capabilities up here")
