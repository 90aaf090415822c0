"""What of block-local training a checkpoint's own config says otherwise."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..models.plain import is_local

_KEYS = ('cuts', 'local_blocks', 'auxiliary')


def config_of(checkpoint: Mapping) -> Config | None:
    """The config that a Runner wrote into a checkpoint, None without one. Nothing that it names is imported."""
    text = checkpoint.get('meta', {}).get('cfg')
    if not text:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'config.py')
        path.write_text(text)
        return Config.fromfile(path, import_custom_modules=False)


def changed_keys(trained: Config, now: Config) -> list[str]:
    """The keys of a local backbone that differ between two configs, in words; none if either has a plain one.

    Args:
        trained: A checkpoint's.
        now: The one that is to go on from it.
    """
    backbones = [config.get('model', {}).get('backbone') or {} for config in (trained, now)]
    if not all(map(is_local, backbones)):
        return []
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
    """Cuts may be tuples in one config and lists in the other."""
    return list(map(_as_lists, value)) if isinstance(value, (list, tuple)) else value
