"""Shipped configs, made small enough for a test."""

import json
from pathlib import Path

from mmengine.config import Config
from runners import renamed


def _with_classes(config: object, classes: int) -> None:
    """Change every num_classes in a config."""
    if isinstance(config, dict):
        if 'num_classes' in config:
            config['num_classes'] = classes
        config = list(config.values())
    for value in config if isinstance(config, (list, tuple)) else ():
        _with_classes(value, classes)


def _shrink(transform: dict) -> None:
    """Let a transform, and those inside it, make tiny images."""
    for inside in transform.get('transforms', ()):
        for each in inside if isinstance(inside, (list, tuple)) else (inside,):
            _shrink(each)
    if transform['type'] in ('Resize', 'RandomResize'):
        transform['scale'] = (96, 80)
    if 'scales' in transform:
        transform['scales'] = [(96, 80)]
    if 'img_scale' in transform:  # Mosaic, MixUp
        transform['img_scale'] = (96, 96)
    if transform['type'] == 'RandomCrop':
        transform['crop_size'] = (64, 96)
    if transform['type'] == 'Pad':
        transform['size'] = (96, 96)


def small(config: Config, scenes: Path, work: 'Path | None' = None) -> Config:
    """A shipped config on the drawn scenes: one iteration of two tiny images, weights drawn at random.

    Args:
        config: As it was read; it is changed.
        scenes: What ``tools/make_demo_data.py`` drew.
        work: The work folder, None to leave that open.
    """
    config.model.backbone.init_cfg = None
    if config.default_scope == 'mmpretrain':
        return _small_classifier(config, scenes, work)
    detection = config.default_scope == 'mmdet'
    if not detection:
        config.model.pretrained = None
        config.model.data_preprocessor.size = (64, 96)
    for split in ('train', 'val'):
        loader = config[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        for transform in loader.dataset.pipeline:
            _shrink(transform)
    if detection:
        _with_classes(config.model, 5)
        if 'num_queries' in config.model:  # no more than so small images have positions
            config.model.num_queries = 20
            config.model.test_cfg.max_per_img = 50
        if 'score_thr' in config.model.test_cfg:
            config.model.test_cfg.score_thr = 0.0  # after one step a dense head scores nothing higher
        names = [
            c['name'] for c in json.loads((scenes / 'annotations/instances_val2017.json').read_text())['categories']
        ]
        for split in ('train', 'val'):
            config[f'{split}_dataloader'].dataset.update(
                data_root=f'{scenes}/', ann_file=f'annotations/instances_{split}2017.json',
                data_prefix=dict(img=f'{split}2017/'), metainfo=dict(classes=tuple(names)),
            )  # fmt: skip
        config.val_evaluator.ann_file = f'{scenes}/annotations/instances_val2017.json'
        config.train_cfg.update(max_epochs=1, val_interval=1)
    else:
        config.train_cfg.update(max_iters=1, val_interval=1)
        _with_classes([config.model, config.train_dataloader], 19)
        for split in ('train', 'val'):  # ADE20K's and CamVid's, too: the drawn scenes lie as Cityscapes does
            dataset = config[f'{split}_dataloader'].dataset
            prefix = dict(img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}')
            dataset.update(type='CityscapesDataset', data_root=str(scenes), data_prefix=prefix)
            for transform in dataset.pipeline:
                transform.pop('reduce_zero_label', None)
    if (config.model.test_cfg or {}).get('mode') == 'slide':
        config.model.test_cfg.update(crop_size=(64, 96), stride=(48, 64))
    config.optim_wrapper.type = 'OptimWrapper'  # mixed precision needs a GPU
    return _finished(config, work)


def _small_classifier(config: Config, scenes: Path, work: 'Path | None') -> Config:
    """A classifier's config on the small drawn images: one iteration of fifty."""
    _with_classes([config.model, config.data_preprocessor], 5)
    for split in ('train', 'val'):
        loader = config[f'{split}_dataloader']
        loader.update(batch_size=50, num_workers=0, persistent_workers=False)
        mosaics = dict(type='MosaicDataset', data_root=str(scenes / 'mosaics'), split=split, per_class=10)
        loader.dataset = mosaics | dict(pipeline=[dict(type='PackInputs')])
    config.train_cfg.update(max_epochs=1, val_interval=1)
    return _finished(config, work)


def _finished(config: Config, work: 'Path | None') -> Config:
    config.param_scheduler = None
    config.test_dataloader, config.test_evaluator = config.val_dataloader, config.val_evaluator
    return renamed(config, log_level='WARNING', **({} if work is None else dict(work_dir=str(work))))
