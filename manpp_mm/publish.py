"""From a checkpoint of a block-local training to one of the plain model."""

import copy
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope

from . import hooks
from .launch import read_checkpoint
from .models.plain import is_local, plain_model

_TWINS = {'AtomicCheckpointHook': 'CheckpointHook', 'PresentClassIoUMetric': 'IoUMetric'}
"""What of ours stands in for what of MMLab's."""
_TRAINING = {*hooks.__all__, 'CheckLabels'} - _TWINS.keys()
"""What of ours only training needs."""
_OWN_KEYS = ('leave_out',)
"""Arguments that the stand-ins have and their twins have not."""


def publish(source: 'str | Path', target: 'str | Path', raw: bool = False) -> Path:
    """Write the plain model of a block-local checkpoint, for users without this package.

    Auxiliary networks, optimizer and hook state are left out. ``meta['cfg']`` becomes the plain model's config, so that
    ``DetInferencer(weights=...)`` needs nothing else.

    Args:
        source: A checkpoint that a block-local training wrote.
        target: The file to write. Its name gets the first 8 digits of its SHA-256: ``name-1a2b3c4d.pth``.
        raw: Take the weights as trained where ``EMAHook`` was there; without it the averaged ones.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: There is no ``source``, or no folder for ``target``.
        ValueError: The checkpoint is of another kind, ``raw`` without averaged weights, or ``target`` does not end in
            ``.pth``.
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
            f'{source} is no checkpoint of a training: it needs state_dict and meta.cfg, and holds '
            f'{", ".join(map(str, list(checkpoint)[:3])) or "nothing"}{", ..." if len(checkpoint) > 3 else ""}'
        )
    config = Config.fromstring(meta['cfg'], '.py')
    backbone = config.get('model', {}).get('backbone', {})
    if not is_local(backbone):
        raise ValueError(
            f'{source} was not trained block by block (its model.backbone.type is {backbone.get("type")!r}): publish '
            "it by MMDetection's or MMSegmentation's own publish_model.py"
        )
    weights = checkpoint['state_dict']
    if raw:
        if 'ema_state_dict' not in checkpoint:
            raise ValueError(f'--raw: {source} holds no averaged weights (EMAHook), its only weights are the trained')
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
    """A block-local config without anything that needs this package.

    Args:
        config: The whole config of a training; left as it is.
    """
    found = _plain({key: value for key, value in config.to_dict().items() if not key.startswith('manpp_')})
    found['model'] = plain_model(ConfigDict(found['model'])).to_dict()
    imports = [name for name in config.get('custom_imports', {}).get('imports', []) if name != 'manpp_mm']
    found.pop('custom_imports', None)
    if imports:
        found['custom_imports'] = dict(imports=imports, allow_failed_imports=False)
    paramwise = (found.get('optim_wrapper') or {}).get('paramwise_cfg') or {}
    keys = paramwise.get('custom_keys') or {}
    for name in [name for name in keys if name.startswith('backbone.auxiliary')]:
        del keys[name]
    found.update(load_from=None, resume=False)
    return Config(found)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        found = {key: _plain(item) for key, item in value.items() if not _is_ours(item)}
        if found.get('type') in _TWINS:
            found['type'] = _TWINS[found['type']]
            for key in _OWN_KEYS:
                found.pop(key, None)
        return found
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value if not _is_ours(item))
    return value


def _is_ours(value: Any) -> bool:
    """Whether a hook or transform is this package's and has no twin."""
    return isinstance(value, Mapping) and value.get('type') in _TRAINING


def check_strict(config: Config, weights: Mapping, source: Path) -> None:
    """Do the weights fit the plain model, every one?

    Raises:
        ValueError: They do not.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    try:
        MODELS.build(copy.deepcopy(config.model)).load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f'{source} does not fit the plain model of its own config: {error}') from error
