"""Helpers for error messages."""

import errno
import os

import pytest

from agepipe.core.errors import first_line
from agepipe.core.system_errors import full_disk


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("one\ntwo"), "one"), (ValueError("\n one\n"), "one"), (KeyboardInterrupt(), "KeyboardInterrupt")],
)
def test_the_first_line_of_a_message_or_the_name_of_the_class(error: BaseException, line: str) -> None:
    assert first_line(error) == line


def test_a_full_disk_names_the_file_that_could_not_be_written() -> None:
    full = os.strerror(errno.ENOSPC)
    assert "/disk/one" in (full_disk(OSError(errno.ENOSPC, full, "/disk/one")) or "")
    copied = full_disk(OSError(errno.ENOSPC, full, "/bucket/one", None, "/disk/copy")) or ""
    assert ("/disk/copy" in copied, "/bucket/one" in copied) == (True, False)
    assert full_disk(OSError(errno.EACCES, "no", "/disk/one")) is None
