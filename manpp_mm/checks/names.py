"""Words of messages."""

from collections.abc import Iterable


def listed(names: Iterable[object], most: int = 10) -> str:
    """Names with commas, the first ones of many."""
    row = list(map(str, names))
    return ', '.join(row[:most]) + (', ...' if len(row) > most else '')
