"""What may change between a checkpoint and the training that goes on from it."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from ..checkpoint_file import read_checkpoint, trained_config
from .classes import head_classes
from .names import listed


def check_resume(config: Config, checkpoint: str) -> list[str]:
    """Can a config go on from a checkpoint?

    MMEngine restores schedules with their milestones and optimizers with their state, whatever the config says now.

    Returns:
        Warnings.

    Raises:
        ValueError: The checkpoint cannot be resumed from, the schedule differs, or the model has other classes.
    """
    found = read_checkpoint(checkpoint)
    if 'message_hub' not in found:
        raise ValueError(
            f'--resume: {checkpoint} holds weights alone: a published file, say. To start from its weights, '
            f'--cfg-options load_from={checkpoint}'
        )
    before = trained_config(found)
    _check_restored(before, config, checkpoint)
    _check_shapes(before, config, checkpoint)
    warnings = _batch_size(before, config, checkpoint)
    if 'optimizer' not in found:
        warnings.append(f"{checkpoint} holds no state of the optimizer: it starts anew, Adam's averages with it")
    return warnings


_RESTORED = {
    'param_scheduler': lambda config: config.get('param_scheduler'),
    'optim_wrapper.optimizer': lambda config: (config.get('optim_wrapper') or {}).get('optimizer'),
    'optim_wrapper.paramwise_cfg': lambda config: (config.get('optim_wrapper') or {}).get('paramwise_cfg'),
}
"""What MMEngine takes from the checkpoint, whatever the config says."""


def _check_restored(before: Mapping[str, Any], config: Config, checkpoint: str) -> None:
    for key, value in _RESTORED.items():
        old, new = _plain(value(before)), _plain(value(config))
        if key.partition('.')[0] in before and old != new:
            raise ValueError(
                f'--resume: {checkpoint} was trained with another {key}, and a resumed run goes on by the old one: it '
                f'had {old}, the config has {new}. Set it back, or start a new training from its weights, '
                f'--cfg-options load_from={checkpoint}'
            )


def _check_shapes(before: Mapping[str, Any], config: Config, checkpoint: str) -> None:
    if 'model' not in before:
        return
    old, new = dict(head_classes(before['model'])), dict(head_classes(config.model))
    changed = [f'{key}={old[key]} (now {new[key]})' for key in old.keys() & new.keys() if old[key] != new[key]]
    if changed:
        raise ValueError(
            f'--resume: {checkpoint} was trained with {listed(sorted(changed))}. Set it back, or start a new training '
            f'from its weights, --cfg-options load_from={checkpoint}'
        )


def _batch_size(before: Mapping[str, Any], config: Config, checkpoint: str) -> list[str]:
    sizes = [(each.get('train_dataloader') or {}).get('batch_size') for each in (before, config)]
    if sizes[0] is None or sizes[0] == sizes[1]:
        return []
    return [
        f'{checkpoint} was trained with train_dataloader.batch_size={sizes[0]}, the config has {sizes[1]}: the '
        'learning rate stays, and what is scheduled by iteration comes after other images'
    ]


def _plain(value: Any) -> Any:
    """Without what MMEngine's text turns into something else: tuples, and the order of keys."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in sorted(value.items(), key=str)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
