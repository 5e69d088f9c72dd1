"""Helpers for error messages."""

import pytest

from agepipe.core.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("one\ntwo"), "one"), (ValueError("\n one\n"), "one"), (KeyboardInterrupt(), "KeyboardInterrupt")],
)
def test_the_first_line_of_a_message_or_the_name_of_the_class(error: BaseException, line: str) -> None:
    assert first_line(error) == line
