"""Check that the schedules fit the length of the training."""

from collections.abc import Iterator, Mapping

from mmengine.config import Config

from ..registered import kind_of


def check_schedule(config: Config) -> list[str]:
    """Return warnings about what a training never reaches: milestones, ends of schedules, a validation."""
    length = config.get('train_cfg') or {}
    by_epoch = length.get('max_iters') is None
    total, unit = (length.get('max_epochs'), 'max_epochs') if by_epoch else (length['max_iters'], 'max_iters')
    if not total:
        return []
    warnings = []
    schedulers = config.get('param_scheduler') or []
    for index, each in enumerate([schedulers] if isinstance(schedulers, Mapping) else schedulers):
        if not isinstance(each, Mapping) or each.get('by_epoch', True) != by_epoch:
            continue
        for key, place in _places(each):
            if place > total:
                warnings.append(
                    f'param_scheduler.{index}.{key} ({kind_of(each)}) is {each[key]}, but the training ends at '
                    f'train_cfg.{unit}={total}: the learning rate will not be reduced as planned'
                )
                break
    interval = length.get('val_interval')
    if config.get('val_dataloader') and interval and interval > total + 1:  # total + 1 turns it off on purpose
        warnings.append(f'train_cfg.val_interval={interval} exceeds {unit}={total}: there will be no validation')
    return warnings


def _places(scheduler: Mapping) -> Iterator[tuple[str, int]]:
    """Yield key and iteration or epoch of each change by a scheduler."""
    for place in scheduler.get('milestones') or []:
        yield 'milestones', place
    if kind_of(scheduler).startswith(('CosineAnnealing', 'Poly')) and isinstance(scheduler.get('end'), int):
        yield 'end', scheduler['end']
