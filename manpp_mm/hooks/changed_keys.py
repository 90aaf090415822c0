"""In what a checkpoint's own config trained its auxiliary networks differently."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import ConfigDict

from ..models.plain import is_local

_KEYS = ('cuts', 'local_blocks', 'auxiliary')


def trained_config(checkpoint: Mapping) -> ConfigDict:
    """What can be read of the config that a Runner wrote into a checkpoint; its text is not run.

    Args:
        checkpoint: What the file holds.

    Returns:
        The variables whose values are made of literals and ``dict(...)``, as MMEngine writes them; empty without any.
    """
    text = (checkpoint.get('meta') or {}).get('cfg')
    found = ConfigDict()
    try:
        statements = ast.parse(text if isinstance(text, str) else '').body
    except SyntaxError:
        return found
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                found[statement.targets[0].id] = _value(statement.value)
            except ValueError:
                continue  # a function or a name: nothing of what is asked for here
    return found


def _value(node: ast.expr) -> Any:
    """The value of a literal, ``dict(key=literal)`` among them; a ValueError for anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)}
    return ast.literal_eval(node)


def changed_keys(trained: Mapping, now: Mapping) -> list[str]:
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
