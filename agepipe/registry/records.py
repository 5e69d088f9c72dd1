"""The record of a registered version."""

from agepipe.core.record import Record


class Registered(Record):
    """A version in the model registry and what became of it; the digest is the model's."""

    name: str
    version: int
    alias: str
    """`champion` or `challenger`."""
    reason: str
    """One sentence: why it has this alias."""
