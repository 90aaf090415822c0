"""Every shipped config takes a training step and an evaluation on a few drawn scenes."""

import json
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from processes import execute
from runners import renamed, runner

CONFIGS = sorted((Path(__file__).parents[2] / 'configs').glob('*_manpp*.py'))
SHIPPED = [path for path in CONFIGS if not path.name.startswith('demo')]


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    done = execute(sys.executable, 'tools/make_demo_data.py', folder, '--train', '2', '--val', '2')
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def with_classes(config: object, before: int, after: int) -> None:
    """Change every num_classes in a config."""
    if isinstance(config, dict):
        if config.get('num_classes') == before:
            config['num_classes'] = after
        config = list(config.values())
    for value in config if isinstance(config, (list, tuple)) else ():
        with_classes(value, before, after)


def small(path: Path, scenes: Path, work: Path, monkeypatch) -> Config:
    """The config on the drawn scenes: one iteration of two tiny images, weights drawn at random."""
    monkeypatch.setenv('COCO_ROOT', str(scenes))
    monkeypatch.setenv('CITYSCAPES_ROOT', str(scenes))
    config = Config.fromfile(path)
    config.model.backbone.init_cfg = None
    detection = config.default_scope == 'mmdet'
    if not detection:
        config.model.pretrained = None
        config.model.data_preprocessor.size = (64, 96)
    for split in ('train', 'val'):
        loader = config[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        for transform in loader.dataset.pipeline:
            if transform.type in ('Resize', 'RandomResize'):
                transform.scale = (96, 80)
            if transform.type == 'RandomCrop':
                transform.crop_size = (64, 96)
    if detection:
        with_classes(config.model, 80, 5)
        if 'score_thr' in config.model.test_cfg:
            config.model.test_cfg.score_thr = 0.0  # after one step a dense head scores nothing higher
        names = [
            c['name'] for c in json.loads((scenes / 'annotations/instances_val2017.json').read_text())['categories']
        ]
        for loader in (config.train_dataloader, config.val_dataloader):
            loader.dataset.metainfo = dict(classes=tuple(names))
        config.train_cfg.max_epochs = 1
    else:
        config.train_cfg.update(max_iters=1, val_interval=1)
    for key in ('test_cfg', 'test_dataloader', 'test_evaluator', 'param_scheduler'):
        config[key] = None
    return renamed(config, work_dir=str(work), log_level='WARNING')


@pytest.mark.slow
@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_builds_at_full_size(path):
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    backbone = MODELS.build(config.model).backbone
    assert len(backbone.auxiliary) == len(backbone.cuts) >= 2


@pytest.mark.slow
@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_one_step_and_evaluation(path, scenes, tmp_path, monkeypatch):
    run = runner(small(path, scenes, tmp_path / 'work', monkeypatch))
    blocks = len(run.model.backbone.auxiliary)
    run.train()
    logged = run.message_hub.log_scalars
    assert all(any(name.startswith(f'train/block{j}.') and 'loss' in name for name in logged) for j in range(blocks))
    metrics = {name: buffer.current() for name, buffer in logged.items() if name.startswith('val/')}
    wanted = ['val/mIoU'] if 'cityscapes' in path.name else ['val/coco/bbox_mAP']
    wanted += ['val/coco/segm_mAP'] if path.name.startswith('mask') else []
    assert set(wanted) <= set(metrics)
