"""Checks of a config's files and folders, before anything is built."""

import logging
import os.path as osp
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

_ROOTS = {
    'coco_root': 'COCO_ROOT',
    'cityscapes_root': 'CITYSCAPES_ROOT',
    'ade20k_root': 'ADE20K_ROOT',
    'imagenet_root': 'IMAGENET_ROOT',
    'cifar10_root': 'CIFAR10_ROOT',
    'demo_root': 'DEMO_ROOT',
}
"""Variables of the shipped configs, and the environment variables that they read."""


def check_data(config: Config, *splits: str) -> None:
    """Check that annotations and image folders exist, before anything is built.

    Args:
        config: The config.
        splits: Any of ``'train'``, ``'val'``, ``'test'``.

    Raises:
        FileNotFoundError: An annotation file or a classifier's data are missing, or an image or label folder is missing
            or has no file with the data set's suffix; the message names the config key and a fix.
    """
    for split in splits:
        for key, dataset in keyed_datasets(config, split):
            if not local_files(dataset):
                continue
            root = dataset.get('data_root') or ''
            prefix = dataset.get('data_prefix') or {}
            places = {'ann_file': dataset.get('ann_file') or ''}
            if isinstance(prefix, str):  # MMPretrain
                places['data_prefix'] = prefix
            else:
                places |= {f'data_prefix.{name}': place for name, place in prefix.items()}
            if dataset.get('type') in ('ImageNet', 'CustomDataset', 'MosaicDataset'):
                places['data_root'] = root
            for name, place in places.items():
                if not isinstance(place, str) or not place or '://' in root + place:
                    continue
                path = root if name == 'data_root' else osp.join(root, place)
                suffix = _suffix(dataset, name)
                if not osp.exists(path):
                    fault = 'does not exist'
                elif suffix and next(Path(path).rglob(f'*{suffix}'), None) is None:
                    fault = f'has no file *{suffix}'
                else:
                    continue
                keys = ' or '.join(dict.fromkeys([f'{key}.data_root', f'{key}.{name}']))
                raise FileNotFoundError(
                    f'{path} {fault} ({key}.{name}). docs/your_data.md and data/README.md show the layout. Then '
                    f'{way_to_data(config, root)}set {keys} in the config'
                )


def check_crop(config: Config) -> None:
    """Warn if a segmentor pads its crops: padding costs as much as image content and enters BatchNorm statistics."""
    size = config.model.get('data_preprocessor', {}).get('size')
    for dataset in datasets_of(config, 'train'):
        for transform in dataset.get('pipeline') or []:
            crop = transform.get('crop_size')
            crop = (crop, crop) if isinstance(crop, int) else crop
            if transform.get('type') == 'RandomCrop' and size and crop and tuple(crop) != tuple(size):
                print_log(
                    f'Crops of {tuple(crop)} are padded to model.data_preprocessor.size={tuple(size)}: the padding '
                    'costs memory and time, and enters BatchNorm statistics. Set both to the same size.',
                    logger='current',
                    level=logging.WARNING,
                )


def datasets_of(config: Config, split: str) -> Iterator[ConfigDict]:
    """Yield the data sets of a split, without their wrappers."""
    for _, dataset in keyed_datasets(config, split):
        yield dataset


def keyed_datasets(config: Config, split: str) -> Iterator[tuple[str, ConfigDict]]:
    """Yield the data sets of a split without their wrappers, each with its config key."""
    loader = config.get(f'{split}_dataloader')
    yield from _datasets(loader.get('dataset') if loader else None, f'{split}_dataloader.dataset')


def local_files(dataset: Mapping[str, Any]) -> bool:
    """Return whether a data set and its pipeline read from local disks."""
    parts = [dataset, *(dataset.get('pipeline') or [])]
    backends = [part['backend_args'] for part in parts if isinstance(part, Mapping) and part.get('backend_args')]
    return all(each.get('backend', 'local') in ('local', 'disk') for each in backends)


def innermost(dataset: ConfigDict) -> ConfigDict:
    """Return the data set inside wrappers of a single data set, such as RepeatDataset."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def way_to_data(config: Config, root: str | None = None) -> str:
    """Return advice for a message: the environment variable for a config's data; '' if it reads none."""
    for key, variable in _ROOTS.items():
        if key in config and root in (None, config[key]):
            return f'set the environment variable {variable} to its folder, or '
    return ''


def _suffix(dataset: ConfigDict, name: str) -> str:
    """Return the suffix of the files in a segmentation data set's folder, '' if unknown."""
    if dataset.get('type') not in ('CityscapesDataset', 'ADE20KDataset', 'BaseSegDataset'):
        return ''
    defaults = dict(img_path='.jpg', seg_map_path='.png')
    if dataset['type'] == 'CityscapesDataset':
        defaults = dict(img_path='_leftImg8bit.png', seg_map_path='_gtFine_labelTrainIds.png')
    keys = {'data_prefix.img_path': 'img_suffix', 'data_prefix.seg_map_path': 'seg_map_suffix'}
    return dataset.get(keys[name], defaults[name.removeprefix('data_prefix.')]) if name in keys else ''


def _datasets(dataset: Any, key: str) -> Iterator[tuple[str, ConfigDict]]:
    """Yield the data sets inside wrappers such as RepeatDataset and ConcatDataset."""
    if isinstance(dataset, dict) and 'datasets' in dataset:
        for index, inner in enumerate(dataset['datasets']):
            yield from _datasets(inner, f'{key}.datasets.{index}')
    elif isinstance(dataset, dict) and 'dataset' in dataset:
        yield from _datasets(dataset['dataset'], f'{key}.dataset')
    elif isinstance(dataset, dict):
        yield key, dataset
