"""Checks for config keys that nothing reads."""

import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner

from .names import listed

_READ = {
    *inspect.signature(Runner).parameters,
    *inspect.signature(FlexibleRunner).parameters,
    *('custom_imports', 'runner_type', 'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'compile'),
    *('tta_model', 'tta_pipeline', 'env_cfg', 'data_preprocessor'),
}
"""Top-level keys that a Runner or a tool reads."""

_ALIASES = {
    'lr': 'optim_wrapper.optimizer.lr',
    'learning_rate': 'optim_wrapper.optimizer.lr',
    'epochs': 'train_cfg.max_epochs',
    'batch_size': 'train_dataloader.batch_size',
    'samples_per_gpu': 'train_dataloader.batch_size',
    'workers_per_gpu': 'train_dataloader.num_workers',
    'num_workers': 'train_dataloader.num_workers',
    'seed': 'randomness.seed',
    'total_epochs': 'train_cfg.max_epochs',
    'pretrained': 'load_from',
    'checkpoint': 'load_from',
    'resume_from': 'resume',
}
"""The config key that users of MMLab usually mean by a name."""


def merge_options(config: Config, options: 'Mapping[str, Any] | None') -> None:
    """Merge ``--cfg-options`` into a config; see :func:`check_options`."""
    check_options(config, options or {})
    config.merge_from_dict(options or {})


def check_options(config: Config, options: Mapping[str, Any]) -> None:
    """Check for top-level keys on the command line that would have no effect.

    Variables of the config are such keys, because the config file has already been read.

    Args:
        config: The config before the options are merged.
        options: ``--cfg-options``.

    Raises:
        ValueError: A key would have no effect; the message suggests the intended key.
    """
    for key in options:
        name = key.partition('.')[0]
        if name in _READ:
            continue
        meant = _meant(config, name)
        hint = f'did you mean {listed(meant, 3)}?' if meant else f'valid keys: {listed(sorted(_READ), 50)}'
        raise ValueError(f'--cfg-options {key}=...: nothing reads the top-level key {name!r}; {hint}')


def _meant(config: Config, name: str) -> list[str]:
    alias = [_ALIASES[name]] if name in _ALIASES else []
    inner = [key for key in _keys({k: v for k, v in config.items() if k in _READ}) if key.endswith(f'.{name}')]
    inner.sort(key=lambda key: key.count('.'))
    return list(dict.fromkeys([*alias, *inner])) or get_close_matches(name, sorted(_READ), 1)


def _keys(node: Mapping[str, Any], prefix: str = '') -> Iterator[str]:
    for name, value in node.items():
        yield f'{prefix}{name}'
        if isinstance(value, Mapping):
            yield from _keys(value, f'{prefix}{name}.')
