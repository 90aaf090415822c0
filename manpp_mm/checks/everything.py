"""All checks of a config's data, ordered so that the most helpful message comes first."""

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
from .classes import check_head_classes, check_splits_agree, compares_classes
from .files import check_data, keyed_datasets, local_files


@dataclass
class Report:
    """The result of the checks.

    Attributes:
        warnings: Lines for the log.
        summary: The content of each data set, by its config key: a :class:`~.coco.BoxCount` or a
            :class:`~.labels.LabelCount`.
        sizes: A line about the image sizes of each data set, by its config key.
    """

    warnings: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, str] = field(default_factory=dict)


def check_everything(config: Config, *splits: str) -> Report:
    """Check classes, data sets and evaluators of a config, before anything is built.

    Args:
        config: The config; not modified.
        splits: Any of ``'train'``, ``'val'``, ``'test'``.

    Raises:
        ValueError: A check failed; the message names the file or config key and a fix.
        FileNotFoundError: A file is missing.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    check_data(config, *splits)
    report = Report()
    if 'train' in splits:
        report.warnings += evaluators.check_save_best(config)
    read = cache(coco.read_coco)
    classes: dict[str, tuple[str, ...]] = {}
    for split in splits:
        used: dict[str, tuple[str, coco.BoxCount]] = {}
        for key, dataset in keyed_datasets(config, split):
            kind = named_class(dataset.get('type'), 'dataset', config.get('default_scope'))
            if kind is None:
                continue
            place = _Place(config, split, key, dataset, kind)
            if place.classes and compares_classes(config.model) and not kind.__name__.endswith('PanopticDataset'):
                check_head_classes(config.model, place.classes, key)
                classes[key] = place.classes
            if place.is_coco():
                _check_coco(place, report, used, read)
            elif place.reads_label_maps():
                _check_label_maps(place, report)
        coco.check_any_used(used)
    if classes:
        check_splits_agree(classes)
    return report


def classes_of(dataset: Mapping[str, Any], kind: type, key: str) -> 'tuple[str, ...] | None':
    """Return the classes of a data set, from the config or from its type; None if only its files name them.

    Raises:
        ValueError: The config gives a single string.
    """
    classes = dataset.get('classes') or (dataset.get('metainfo') or {}).get('classes')
    if not classes and not (dataset.get('ann_file') and 'mmpretrain' in kind.__module__):  # its files may name others
        classes = getattr(kind, 'METAINFO', {}).get('classes')
    if isinstance(classes, str) and osp.isfile(classes):
        with open(classes, encoding='utf-8') as file:
            return tuple(line.rstrip('\n\r') for line in file)
    if isinstance(classes, str):
        raise ValueError(
            f'{key}.metainfo.classes={classes!r} is a string, but not a file: write a single class with a comma, '
            f'({classes!r},)'
        )
    return tuple(classes) if classes else _folders(dataset, kind)


def _folders(dataset: Mapping[str, Any], kind: type) -> 'tuple[str, ...] | None':
    """Return the classes of MMPretrain's ``CustomDataset`` without annotations: the sorted names of its folders."""
    if kind.__name__ != 'CustomDataset' or dataset.get('ann_file') or not dataset.get('with_label', True):
        return None
    prefix = dataset.get('data_prefix') or ''
    prefix = prefix if isinstance(prefix, str) else prefix.get('img_path') or ''
    root = osp.join(dataset.get('data_root') or '', prefix)
    return tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir())) if osp.isdir(root) else None


class _Place:
    """A data set in a config."""

    def __init__(self, config: Config, split: str, key: str, dataset: ConfigDict, kind: type) -> None:
        self.config, self.split, self.key, self.dataset, self.kind = config, split, key, dataset, kind
        self.classes = classes_of(dataset, kind, key)
        self.local = local_files(dataset)

    def is_coco(self) -> bool:
        """Return whether it reads COCO files as MMDetection's own class does."""
        if self.config.get('default_scope') != 'mmdet':
            return False
        from mmdet.datasets import CocoDataset

        own = ('load_data_list', 'parse_data_info')
        return issubclass(self.kind, CocoDataset) and all(
            getattr(self.kind, name) is getattr(CocoDataset, name) for name in own
        )

    def reads_label_maps(self) -> bool:
        """Return whether it reads images and label maps with MMSegmentation's own transforms."""
        if self.config.get('default_scope') != 'mmseg':
            return False
        from mmseg.datasets import BaseSegDataset

        steps = self.transforms('LoadAnnotations'), self.transforms('LoadImageFromFile')
        return issubclass(self.kind, BaseSegDataset) and all(steps)

    def transforms(self, name: str) -> list[Mapping[str, Any]]:
        """Return the transforms of its pipeline that have a given type name."""
        return [transform for transform in self.dataset.get('pipeline') or [] if kind_of(transform) == name]

    def metrics(self) -> list[Mapping[str, Any]]:
        """Return the metrics that evaluate on it."""
        return [] if self.split == 'train' else evaluators.metrics_of(self.config, self.split)


def _check_coco(
    place: _Place, report: Report, used: dict[str, tuple[str, coco.BoxCount]], read: Callable[[str], dict]
) -> None:
    dataset, key, metrics = place.dataset, place.key, place.metrics()
    root, classes = dataset.get('data_root') or '', place.classes
    path = osp.join(root, dataset.get('ann_file') or '')
    if not place.local or not osp.isfile(path):
        return  # not on this machine
    if classes is None:
        raise ValueError(
            f'{key}: neither the config nor {place.kind.__name__}.METAINFO names the classes: set '
            f'{key}.metainfo=dict(classes=(...))'
        )
    found = read(path)
    measured = [kind_of(metric) == 'CocoMetric' and not metric.get('format_only') for metric in metrics]
    coco.check_structure(path, found, evaluated=any(measured))
    coco.check_order(path, found, classes, key)
    counts = coco.count_boxes(found, classes)
    if place.split == 'train' or any(measured):
        report.summary[key] = counts
        used[key] = path, counts
        report.warnings += coco.check_counts(path, counts, key)
        if any(each.get('with_mask') for each in place.transforms('LoadAnnotations')):
            report.warnings += coco.check_masks(path, found, classes, evaluated=any(measured))
    if len(list(keyed_datasets(place.config, place.split))) == 1 and any(measured):
        evaluators.check_evaluator_file(place.config, place.split, path, classes, read)
    folder = osp.join(root, (dataset.get('data_prefix') or {}).get('img') or '')
    if '://' in folder or dataset.get('indices'):
        return
    filtered = (dataset.get('filter_cfg') or {}) if place.split == 'train' else {}
    pairs = list(coco.image_files(found, folder, classes, filtered))
    if not pairs:
        if counts.used:
            raise ValueError(f'{key}.filter_cfg={dict(filtered)} keeps none of {len(found["images"])} images')
        return
    images.check_exist([file for file, _ in pairs], f'{key}.data_prefix.img')
    if all(each.get('color_type', 'color') == 'color' for each in place.transforms('LoadImageFromFile')):
        looked_at = images.sample(pairs)
        headers = images.in_parallel(images.read_header, [file for file, _ in looked_at], f'images of {key}')
        report.sizes[key] = images.describe_sizes([header.loaded for header in headers])
        sized = ((header, said) for header, (_, said) in zip(headers, looked_at, strict=True))
        if warning := images.check_sizes(sized, path):
            report.warnings.append(warning)


def _check_label_maps(place: _Place, report: Report) -> None:
    key = place.key
    built = DATASETS.build(dict(place.dataset, pipeline=[], lazy_init=True))
    folder, labels_in = (built.data_prefix.get(name) for name in ('img_path', 'seg_map_path'))
    if not place.local or not folder or '://' in folder:
        return
    if not built.ann_file and osp.isdir(folder):
        together = labels_in and osp.realpath(labels_in) == osp.realpath(folder)
        label_suffixes = [built.seg_map_suffix] if together else []
        if warning := labels.check_suffix(folder, built.img_suffix, label_suffixes, key):
            report.warnings.append(warning)
    pairs = built.load_data_list()
    if not pairs or any('seg_map_path' not in pair for pair in pairs):
        return
    images.check_exist([pair['img_path'] for pair in pairs], f'{key}.ann_file')
    labels.check_pairs(pairs, key)
    head = place.config.model.get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    counts = labels.count_labels(pairs, built.reduce_zero_label, key)
    report.summary[key] = counts
    report.sizes[key] = images.describe_sizes(counts.sizes)
    classes = built.metainfo.get('classes')
    counts.classes = tuple(classes or ())
    if classes:
        ignore = head.get('ignore_index', labels.IGNORED)
        trains = place.split == 'train'
        report.warnings += labels.check_values(counts, classes, built.reduce_zero_label, ignore, key, trains)
