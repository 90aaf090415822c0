"""All checks of a config's data, in the order in which they help."""

import os
import os.path as osp
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from ..registered import kind_of, named_class
from . import coco, evaluators, images, labels
from .classes import check_head_classes, check_splits_agree
from .files import check_data, datasets_of


@dataclass
class Report:
    """What the checks found.

    Attributes:
        warnings: Lines for the log.
        summary: For each data set's config key what it holds: a :class:`~.coco.BoxCount` or a
            :class:`~.labels.LabelCount`.
        sizes: For each a line about the sizes of its images.
    """

    warnings: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, str] = field(default_factory=dict)


def check_everything(config: Config, *splits: str) -> Report:
    """Check classes, data sets and evaluators of a config, before anything is built.

    Args:
        config: The config; left as it is.
        splits: Some of ``'train'``, ``'val'``, ``'test'``.

    Raises:
        ValueError: Something is wrong; the message names file or config key and the way out.
        FileNotFoundError: A file is missing.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    check_data(config, *splits)
    if 'train' in splits:
        evaluators.check_save_best(config)
    report = Report()
    read = cache(coco.read_coco)
    classes: dict[str, tuple[str, ...]] = {}
    for split in splits:
        for dataset in datasets_of(config, split):
            _check_dataset(config, split, dataset, report, classes, read)
    if classes:
        check_splits_agree(classes)
    return report


def _check_dataset(
    config: Config, split: str, dataset: ConfigDict, report: Report, found: dict[str, tuple[str, ...]], read: Callable
) -> None:
    scope, key = config.get('default_scope'), f'{split}_dataloader.dataset'
    kind = named_class(dataset.get('type'), 'dataset', scope)
    if kind is None:
        return
    classes = classes_of(dataset, kind, key)
    if classes and not kind.__name__.endswith('PanopticDataset'):
        check_head_classes(config.model, classes, key)
        found.setdefault(key, classes)
    if scope == 'mmdet' and _is_coco(kind):
        _check_coco(config, split, dataset, classes, report, read)
    elif scope == 'mmseg' and _reads_pairs(kind):
        _check_label_maps(config, split, dataset, report)


def classes_of(dataset: Mapping[str, Any], kind: type, key: str) -> 'tuple[str, ...] | None':
    """The classes of a data set: the config's, or those of its class; None where only its files say them.

    Raises:
        ValueError: The config's are one string.
    """
    classes = (dataset.get('metainfo') or {}).get('classes') or getattr(kind, 'METAINFO', {}).get('classes')
    if isinstance(classes, str) and osp.isfile(classes):
        with open(classes, encoding='utf-8') as file:
            return tuple(line.rstrip('\n\r') for line in file)
    if isinstance(classes, str):
        raise ValueError(
            f'{key}.metainfo.classes={classes!r} is a string and no file: a single class is written with a comma, '
            f'({classes!r},)'
        )
    return tuple(classes) if classes else _folders(dataset, kind)


def _folders(dataset: Mapping[str, Any], kind: type) -> 'tuple[str, ...] | None':
    """The classes of MMPretrain's ``CustomDataset`` without annotations: the folders of its images, by name."""
    if kind.__name__ != 'CustomDataset' or dataset.get('ann_file') or not dataset.get('with_label', True):
        return None
    root = osp.join(dataset.get('data_root') or '', dataset.get('data_prefix') or '')
    return tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir())) if osp.isdir(root) else None


def _is_coco(kind: type) -> bool:
    from mmdet.datasets import CocoDataset

    return issubclass(kind, CocoDataset) and all(
        getattr(kind, name) is getattr(CocoDataset, name) for name in ('load_data_list', 'parse_data_info')
    )


def _reads_pairs(kind: type) -> bool:
    from mmseg.datasets import BaseSegDataset

    return issubclass(kind, BaseSegDataset)


def _transforms(dataset: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [transform for transform in dataset.get('pipeline') or [] if kind_of(transform) == name]


def _check_coco(
    config: Config, split: str, dataset: ConfigDict, classes: 'tuple[str, ...]', report: Report, read: Callable
) -> None:
    key, root = f'{split}_dataloader.dataset', dataset.get('data_root') or ''
    path = osp.join(root, dataset.get('ann_file') or '')
    if not osp.isfile(path):
        return  # elsewhere than on this machine
    unlabelled = split == 'test' and any(metric.get('format_only') for metric in evaluators.metrics_of(config, split))
    found = read(path, not unlabelled)
    if not unlabelled:
        coco.check_structure(path, found, evaluated=split != 'train')
        coco.check_order(path, found, classes, key)
        counts = coco.count_boxes(found, classes)
        report.summary[key] = counts
        report.warnings += coco.check_counts(path, counts, key)
        loads = _transforms(dataset, 'LoadAnnotations')
        if any(each.get('with_mask') for each in loads):
            coco.check_masks(path, found)
    if split != 'train':
        evaluators.check_evaluator_file(config, split, path, lambda other: read(other, not unlabelled))
    folder = osp.join(root, (dataset.get('data_prefix') or {}).get('img') or '')
    if '://' in folder:
        return
    pairs = list(coco.image_files(found, folder))
    images.check_exist([file for file, _ in pairs], f'{key}.data_prefix.img')
    if all(each.get('color_type', 'color') == 'color' for each in _transforms(dataset, 'LoadImageFromFile')):
        looked_at = images.sample(pairs)
        headers = images.read_headers([file for file, _ in looked_at], f'images of {key}')
        report.sizes[key] = images.describe_sizes([header.loaded for header in headers])
        sized = ((header, said) for header, (_, said) in zip(headers, looked_at, strict=True))
        if warning := images.check_sizes(sized, path):
            report.warnings.append(warning)


def _check_label_maps(config: Config, split: str, dataset: ConfigDict, report: Report) -> None:
    key = f'{split}_dataloader.dataset'
    built = DATASETS.build(dict(dataset, pipeline=[], lazy_init=True))
    folder, suffix = built.data_prefix.get('img_path'), built.img_suffix
    if folder and not built.ann_file and osp.isdir(folder) and (warning := labels.check_suffix(folder, suffix, key)):
        report.warnings.append(warning)
    pairs = built.load_data_list()
    if not pairs or any('://' in pair['img_path'] or 'seg_map_path' not in pair for pair in pairs):
        return
    images.check_exist([pair['img_path'] for pair in pairs], f'{key}.ann_file')
    labels.check_pairs(pairs, key)
    head = config.model.get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    counts = labels.count_labels(pairs, built.reduce_zero_label, key)
    report.summary[key] = counts
    report.sizes[key] = images.describe_sizes(counts.sizes)
    classes = built.metainfo.get('classes')
    counts.classes = tuple(classes or ())
    if classes:
        ignore = head.get('ignore_index', labels.IGNORED)
        report.warnings += labels.check_values(counts, classes, built.reduce_zero_label, ignore, key)
