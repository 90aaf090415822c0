"""Helpers for the text of messages."""

from collections.abc import Iterable


def listed(names: Iterable[object], most: int = 10) -> str:
    """Join names with commas; of a long list, only the first ones."""
    row = list(map(str, names))
    return ', '.join(row[:most]) + (', ...' if len(row) > most else '')
