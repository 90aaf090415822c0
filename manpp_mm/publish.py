"""Conversion of a training checkpoint to one of the plain model."""

import copy
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from .backbones import local_class
from .checkpoint_file import read_checkpoint
from .methods import imported
from .registered import as_plain, named_class, plain_of

_KINDS = ('hook', 'transform', 'metric', 'model')


def publish(source: 'str | Path', target: 'str | Path', raw: bool = False) -> Path:
    """Write the plain model from a checkpoint, for users without this package.

    Auxiliary networks, optimizer and hook state are omitted. ``meta['cfg']`` becomes the plain model's config, so
    ``DetInferencer(weights=...)`` needs nothing else.

    Args:
        source: A training checkpoint, block-local or not.
        target: The file to write. The first 8 digits of its SHA-256 are added to its name: ``name-1a2b3c4d.pth``.
        raw: Whether to use the weights without averaging if the training used ``EMAHook``; by default, the averaged
            weights are used.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: ``source`` or the folder of ``target`` does not exist.
        ValueError: The checkpoint is not from a training, ``raw`` is set without averaged weights, or ``target`` does
            not end in ``.pth``.
    """
    source, target = Path(source), Path(target)
    if not source.is_file():
        raise FileNotFoundError(f'there is no checkpoint {source}')
    if target.suffix != '.pth':
        raise ValueError(f'{target} must end in .pth')
    if not target.parent.is_dir():
        raise FileNotFoundError(f'there is no folder {target.parent} for {target.name}')
    checkpoint = read_checkpoint(source)
    meta = checkpoint.get('meta', {})
    if 'state_dict' not in checkpoint or 'cfg' not in meta:
        raise ValueError(
            f'{source} is not a training checkpoint: it needs state_dict and meta.cfg, but holds '
            f'{", ".join(map(str, list(checkpoint)[:3])) or "nothing"}{", ..." if len(checkpoint) > 3 else ""}'
        )
    config = Config.fromstring(meta['cfg'], '.py')
    kind = (config.get('model', {}).get('backbone') or {}).get('type')
    if kind is not None and named_class(kind, 'model', config.get('default_scope')) is None:
        raise ValueError(
            f'{source}: its model.backbone.type={kind!r} is not registered: import the module that registers it, '
            'or name it in custom_imports of the config'
        )
    weights = checkpoint['state_dict']
    if raw:
        if 'ema_state_dict' not in checkpoint:
            raise ValueError(f'--raw: {source} holds no averaged weights (EMAHook); omit --raw')
        averaged = checkpoint['ema_state_dict']  # EMAHook swaps the two
        weights = {name.removeprefix('module.'): v for name, v in averaged.items() if name.startswith('module.')}
    weights = {name: v for name, v in weights.items() if not name.startswith('backbone.auxiliary.')}
    plain = plain_config(config)
    check_strict(plain, weights, source)
    kept = {name: value for name, value in meta.items() if name != 'hook_msgs'}
    written = target.with_name(f'.{target.name}')
    torch.save(dict(meta=kept | dict(cfg=plain.pretty_text), state_dict=weights), written)
    digest = hashlib.sha256(written.read_bytes()).hexdigest()[:8]
    final = target.with_name(f'{target.stem}-{digest}.pth')
    os.replace(written, final)
    return final


def plain_config(config: Config) -> Config:
    """Return a config without anything that needs this package.

    Args:
        config: The complete config of a training; not modified.
    """
    kept = {key: value for key, value in config.to_dict().items() if not key.startswith('manpp_')}
    found = _plain(kept, config.get('default_scope'))
    # The module of a user's own local backbone imports this package.
    local, scope = local_class(config), config.get('default_scope')
    needless = [] if local is None else [local.__module__]
    plain = named_class((found['model'].get('backbone') or {}).get('type'), 'model', scope)
    if plain is None or not plain.__module__.startswith(__package__):  # CIFARResNet is this package's own
        needless.append(__package__)
    imports = [name for name in imported(config.get('custom_imports')) if name not in needless]
    found.pop('custom_imports', None)
    if imports:
        found['custom_imports'] = dict(imports=imports, allow_failed_imports=False)
    paramwise = (found.get('optim_wrapper') or {}).get('paramwise_cfg') or {}
    keys = paramwise.get('custom_keys') or {}
    for name in [name for name in keys if name.startswith(('backbone.auxiliary', 'branches.'))]:
        del keys[name]
    found.update(load_from=None, resume=False)
    return Config(found)


def _plain(value: Any, scope: str | None) -> Any:
    """Return part of a config with this package's classes replaced by their plain twins, or removed."""
    if isinstance(value, Mapping):
        cls, kind = _own_class(value, scope)
        if cls is not None:
            value = as_plain(value, cls, kind, scope)
        return {key: _plain(item, scope) for key, item in value.items() if not _vanishes(item, scope)}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item, scope) for item in value if not _vanishes(item, scope))
    return value


def _vanishes(value: Any, scope: str | None) -> bool:
    """Return whether a hook or transform belongs to this package and only training needs it."""
    cls, _ = _own_class(value, scope)
    return cls is not None and plain_of(cls) is None


def _own_class(value: Any, scope: str | None) -> tuple[type | None, str]:
    """Return the class of a config and its kind, if the class belongs to this package or derives from one that does."""
    if isinstance(value, Mapping) and isinstance(value.get('type'), (str, type)):
        for kind in _KINDS:
            cls = named_class(value['type'], kind, scope)
            if any(
                'plain' in vars(base) and base.__module__.startswith(__package__)
                for base in getattr(cls, '__mro__', ())
            ):
                return cls, kind
    return None, ''


def check_strict(config: Config, weights: Mapping, source: Path) -> None:
    """Check that the weights fit the plain model exactly.

    Raises:
        ValueError: They do not.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    try:
        MODELS.build(copy.deepcopy(config.model)).load_state_dict(weights)
    except (RuntimeError, KeyError) as error:
        raise ValueError(f'{source} does not fit the plain model of its own config: {error}') from error
