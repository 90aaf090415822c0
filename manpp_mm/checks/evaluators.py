"""Check that the evaluator's file and ``save_best`` match the validation."""

import os.path as osp
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from ..registered import kind_of
from .names import listed


def metrics_of(config: Config, split: str) -> list[Mapping[str, Any]]:
    """Return the metrics of a split's evaluator."""
    evaluator = config.get(f'{split}_evaluator') or []
    if isinstance(evaluator, Mapping) and 'metrics' in evaluator:
        evaluator = evaluator['metrics']
    return [evaluator] if isinstance(evaluator, Mapping) else list(evaluator)


def check_evaluator_file(
    config: Config, split: str, ann_file: str, classes: Sequence[str], read: Callable[[str], Mapping[str, Any]]
) -> None:
    """Check that the evaluator's COCO file is the data set's, or has the same images and categories.

    Args:
        config: The config.
        split: ``'val'`` or ``'test'``.
        ann_file: The data set's file.
        classes: The data set's classes.
        read: A function that reads a COCO file.

    Raises:
        FileNotFoundError: The evaluator's file does not exist.
        ValueError: Its images or categories differ from those of the data set.
    """
    for metric in metrics_of(config, split):
        other = metric.get('ann_file')
        if not isinstance(other, str) or '://' in other or osp.realpath(other) == osp.realpath(ann_file):
            continue
        key = f'{split}_evaluator.ann_file'
        if not osp.isfile(other):
            raise FileNotFoundError(f'{other} does not exist ({key}); the data set reads {ann_file}')
        files = read(other), read(ann_file)
        images = [{entry.get('id') for entry in file['images']} for file in files]
        categories = [
            {entry.get('id'): entry.get('name') for entry in file['categories'] if entry.get('name') in classes}
            for file in files
        ]
        pairs: dict[str, Sequence[object]] = dict(images=images, categories=categories)
        for name, (theirs, ours) in pairs.items():
            if theirs != ours:
                raise ValueError(
                    f'{key} is {other}, but {split}_dataloader.dataset reads {ann_file}, which has other {name}: '
                    'use the same file for both'
                )


def check_save_best(config: Config) -> list[str]:
    """Check that the validation gives the metric that ``save_best`` names.

    Returns:
        A warning if there is no validation.

    Raises:
        ValueError: The validation does not give this metric.
    """
    hook = (config.get('default_hooks') or {}).get('checkpoint') or {}
    wanted = hook.get('save_best')
    if not wanted:
        return []
    key = 'default_hooks.checkpoint.save_best'
    if not config.get('val_dataloader'):
        return [f'{key}={wanted!r} has no effect: there is no validation (val_dataloader is None)']
    given = metric_names(config)
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name == 'auto' or given is None or name in given:
            continue
        near = [each for each in given if each.rpartition('/')[2] == name]
        raise ValueError(
            f'{key}={name!r}: the validation gives no such metric; it gives {listed(given, 20)}'
            + (f'. Set {near[0]!r}' if near else '')
        )
    return []


def metric_names(config: Config) -> 'list[str] | None':
    """Return the names that the validation gives; None if one of its metrics is not known here."""
    evaluator = config.get('val_evaluator')
    if isinstance(evaluator, Mapping) and 'metrics' in evaluator and kind_of(evaluator) not in ('', 'Evaluator'):
        return None  # MultiDatasetsEvaluator adds prefixes to the names of the metrics
    found: list[str] = []
    for metric in metrics_of(config, 'val'):
        name = kind_of(metric)
        names = _KNOWN[name](metric) if name in _KNOWN else None
        if names is None:
            return None
        found += names
    return found


def _prefixed(metric: Mapping[str, Any], default: str, names: Sequence[str]) -> list[str]:
    prefix = metric.get('prefix') or default
    return [f'{prefix}/{name}' if prefix else name for name in names]


def _coco(metric: Mapping[str, Any]) -> 'list[str] | None':
    if metric.get('classwise'):
        return None  # adds names of classes
    kinds = metric.get('metric', 'bbox')
    names = []
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind in ('proposal', 'proposal_fast'):
            return None
        items = metric.get('metric_items') or ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l']
        names += [f'{kind}_{item}' for item in items]
    return _prefixed(metric, 'coco', names)


def _iou(metric: Mapping[str, Any]) -> list[str]:
    kinds = metric.get('iou_metrics', ['mIoU'])
    of = {'mIoU': ['mIoU', 'mAcc'], 'mDice': ['mDice', 'mAcc'], 'mFscore': ['mFscore', 'mPrecision', 'mRecall']}
    names = [name for kind in ([kinds] if isinstance(kinds, str) else kinds) for name in of.get(kind, [kind])]
    return _prefixed(metric, '', list(dict.fromkeys(['aAcc', *names])))


def _accuracy(metric: Mapping[str, Any]) -> 'list[str] | None':
    topk = metric.get('topk', (1,))
    if metric.get('thrs', 0.0) != 0.0:
        return None  # adds names of thresholds
    return _prefixed(metric, 'accuracy', [f'top{k}' for k in ([topk] if isinstance(topk, int) else topk)])


_KNOWN: dict[str, Callable[[Mapping[str, Any]], list[str] | None]] = {
    'CocoMetric': _coco,
    'IoUMetric': _iou,
    'PresentClassIoUMetric': _iou,
    'Accuracy': _accuracy,
}
