"""Checks of a config against the checkpoint from which a training resumes."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from ..checkpoint_file import read_checkpoint, trained_config
from .classes import head_classes
from .names import listed


def check_resume(config: Config, checkpoint: str) -> list[str]:
    """Check that a training with this config can resume from a checkpoint.

    MMEngine restores milestones and optimizer settings from the checkpoint, and ignores those of the config.

    Returns:
        Warnings.

    Raises:
        ValueError: The checkpoint cannot be resumed, the schedule differs, or the model has other classes.
    """
    found = read_checkpoint(checkpoint)
    if 'message_hub' not in found:
        raise ValueError(
            f'--resume: {checkpoint} holds only weights, like a published file. To start from its weights, use '
            f'--cfg-options load_from={checkpoint}'
        )
    before = trained_config(found)
    _check_restored(before, config, checkpoint)
    _check_shapes(before, config, checkpoint)
    warnings = _batch_size(before, config, checkpoint)
    if 'optimizer' not in found:
        warnings.append(f"{checkpoint} has no optimizer state: the optimizer starts anew, including Adam's averages")
    return warnings


_RESTORED = {
    'param_scheduler': lambda config: config.get('param_scheduler'),
    'optim_wrapper.optimizer': lambda config: (config.get('optim_wrapper') or {}).get('optimizer'),
    'optim_wrapper.paramwise_cfg': lambda config: (config.get('optim_wrapper') or {}).get('paramwise_cfg'),
}
"""Settings that MMEngine restores from the checkpoint, ignoring the config."""


def _check_restored(before: Mapping[str, Any], config: Config, checkpoint: str) -> None:
    for key, value in _RESTORED.items():
        old, new = _plain(value(before)), _plain(value(config))
        if key.partition('.')[0] in before and old != new:
            raise ValueError(
                f'--resume: {checkpoint} was trained with another {key}, and a resumed run keeps the old one: it had '
                f'{old}, the config has {new}. Restore the old value, or start a new training from its weights with '
                f'--cfg-options load_from={checkpoint}'
            )


def _check_shapes(before: Mapping[str, Any], config: Config, checkpoint: str) -> None:
    if 'model' not in before:
        return
    old, new = dict(head_classes(before['model'])), dict(head_classes(config.model))
    changed = [f'{key}={old[key]} (now {new[key]})' for key in old.keys() & new.keys() if old[key] != new[key]]
    if changed:
        raise ValueError(
            f'--resume: {checkpoint} was trained with {listed(sorted(changed))}. Restore the old value, or start a new '
            f'training from its weights with --cfg-options load_from={checkpoint}'
        )


def _batch_size(before: Mapping[str, Any], config: Config, checkpoint: str) -> list[str]:
    sizes = [(each.get('train_dataloader') or {}).get('batch_size') for each in (before, config)]
    if sizes[0] is None or sizes[0] == sizes[1]:
        return []
    return [
        f'{checkpoint} was trained with train_dataloader.batch_size={sizes[0]}, the config has {sizes[1]}: the '
        'learning rate stays, and iteration-based schedules now count other batches'
    ]


def _plain(value: Any) -> Any:
    """Return a value without what MMEngine's text form does not keep: tuples, and the order of keys."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in sorted(value.items(), key=str)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
