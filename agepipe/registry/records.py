"""The record of a registered version."""

from agepipe.core.record import Record


class Registered(Record):
    """A registered version and its alias; the digest is the model's."""

    name: str
    version: int
    alias: str
    """`champion` or `challenger`."""
    reason: str
    """One sentence: why it has this alias."""
