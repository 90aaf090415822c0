"""Differences between a checkpoint's config and the current one that affect auxiliary networks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..backbones import local_class

_KEYS = ('cuts', 'local_blocks', 'auxiliary')


def changed_keys(trained: Mapping, now: Mapping) -> list[str]:
    """Describe the keys of a local backbone that differ between two configs; none if either has a plain backbone.

    Args:
        trained: The config of a checkpoint.
        now: The config that continues from it.
    """
    if local_class(trained) is None or local_class(now) is None:
        return []
    backbones = trained['model']['backbone'], now['model']['backbone']
    old, new = (dict(_leaves({k: b.get(k) for k in _KEYS}, 'model.backbone')) for b in backbones)
    return [
        f'{key}={new.get(key)!r} (it was {old.get(key)!r})'
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f'{name}.{key}')
    elif isinstance(value, Sequence) and value and all(isinstance(item, Mapping) for item in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f'{name}.{index}')
    else:
        yield name, _as_lists(value)


def _as_lists(value: Any) -> Any:
    """Convert tuples to lists, since cuts may be tuples in one config and lists in the other."""
    return list(map(_as_lists, value)) if isinstance(value, (list, tuple)) else value
