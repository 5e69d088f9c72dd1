"""How counts are written in sentences."""


def counted(count: int, noun: str) -> str:
    """`1 face` or `1,200 faces`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
