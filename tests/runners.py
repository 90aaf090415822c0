"""Real Runners on a data set of drawn boxes, small enough for a test."""

import json
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from helpers import detector_config
from mmengine.config import Config
from mmengine.runner import Runner

_names = count()
HOOKS = [dict(type='LocalLearningHook'), dict(type='MomentumHook', momentum=0.9)]


def write_coco(root: Path, images: int = 4, size: int = 64, empty: tuple[int, ...] = ()) -> None:
    """Write noise images with one box each, 3 classes, as train2017 and val2017; ``empty`` images hold no box."""
    generator = np.random.default_rng(0)
    records, boxes = [], []
    for index in range(images):
        for split in ('train', 'val'):
            (root / f'{split}2017').mkdir(parents=True, exist_ok=True)
            image = generator.integers(0, 255, (size, size, 3), dtype=np.uint8)
            cv2.imwrite(str(root / f'{split}2017' / f'{index}.png'), image)
        records.append(dict(id=index, file_name=f'{index}.png', height=size, width=size))
        if index not in empty:
            box = [4 + index, 6, 40, 36]
            boxes.append(
                dict(id=index + 1, image_id=index, category_id=index % 3 + 1, bbox=box, area=40 * 36, iscrowd=0)
            )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate('abc')]
    (root / 'annotations').mkdir(exist_ok=True)
    for split in ('train', 'val'):
        path = root / 'annotations' / f'instances_{split}2017.json'
        path.write_text(json.dumps(dict(images=records, annotations=boxes, categories=categories)))


def coco_runner_config(root: Path, **backbone: object) -> Config:
    """The small detector on :func:`write_coco`'s data, two epochs of two iterations, without validation."""
    write_coco(root)
    config = detector_config(**backbone)
    loader = config.train_dataloader
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    loader.dataset.update(data_root=str(root), metainfo=dict(classes=('a', 'b', 'c')), filter_cfg=None)
    for transform in loader.dataset.pipeline:
        if transform.type == 'Resize':
            transform.scale = (64, 64)
    renamed(config)
    config.merge_from_dict(
        dict(
            work_dir=str(root / 'work'),
            custom_hooks=HOOKS,
            randomness=dict(seed=0),
            log_level='WARNING',
        )
    )
    config.train_cfg.update(max_epochs=2)
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator', 'test_cfg', 'test_dataloader', 'test_evaluator'):
        config[key] = None
    config.param_scheduler = None
    return config


def runner(config: Config) -> Runner:
    """Build a Runner."""
    return Runner.from_cfg(config)


def renamed(config: Config, **keys: object) -> Config:
    """Give a config's Runner a name of its own, for MMEngine's globals leak between Runners, and set keys."""
    name = f'test{next(_names)}'
    config.merge_from_dict(dict(experiment_name=name, visualizer=dict(name=name)) | keys)
    return config
