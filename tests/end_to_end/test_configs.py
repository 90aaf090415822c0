"""Every shipped config builds; one of each kind takes a training step and an evaluation on a few drawn scenes."""

import json
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from processes import execute
from runners import runner
from small_configs import small

CONFIGS = sorted((Path(__file__).parents[2] / 'configs').glob('*_manpp*.py'))
if find_spec('mmpretrain') is None:
    CONFIGS = [path for path in CONFIGS if not re.search('imagenet|cifar10|convnext|resnet14', path.name)]
SHIPPED = [path for path in CONFIGS if not path.name.startswith('demo')]
# The others differ from one of these in depth, width or cuts.
SAME_KIND = {
    'faster_rcnn_r101_manpp_coco', 'faster_rcnn_r50_manpp_lean_coco', 'faster_rcnn_r50_manpp_low_memory_coco',
    'mask_rcnn_r50_manpp_coco', 'retinanet_r50_manpp_lean_coco', 'deeplabv3_r18_manpp_cityscapes',
    'deeplabv3_r101_manpp_cityscapes', 'pspnet_r50_manpp_cityscapes', 'upernet_swin-b_manpp_ade20k',
    'resnet110_manpp_cifar10',
}  # fmt: skip
TRAINED = [path for path in SHIPPED if path.stem not in SAME_KIND]


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    done = execute(sys.executable, 'tools/make_demo_data.py', folder, '--train', '2', '--val', '2')
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope='module')
def sparse_scenes(scenes, tmp_path_factory):
    """Three images in this order: without an object, with one, with a crowd alone."""
    root = tmp_path_factory.mktemp('sparse')
    shutil.copytree(scenes, root, dirs_exist_ok=True)
    file = root / 'annotations/instances_train2017.json'
    coco = json.loads(file.read_text())
    image, one = coco['images'][0], coco['annotations'][0]
    assert one['image_id'] == image['id']
    x, y, _, height = map(int, one['bbox'])
    pixels = image['width'] * image['height']
    # Run lengths of one column, column by column.
    start = x * image['height'] + y
    crowd = one | dict(
        id=2,
        image_id=2,
        iscrowd=1,
        segmentation=dict(size=[image['height'], image['width']], counts=[start, height, pixels - start - height]),
    )
    coco['images'] = [image | dict(id=index) for index in range(3)]
    coco['annotations'] = [one | dict(id=1, image_id=1), crowd]
    file.write_text(json.dumps(coco))
    return root


class LossRecorder(Hook):
    """Keeps the logged losses of each iteration."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append({name: float(value.detach()) for name, value in outputs.items()})


def test_small_objects_teach_a_block_as_much_as_large_ones():
    """Without centre sampling the large one has a hundred times as many positives."""
    backbones = {path.stem: Config.fromfile(path).model.backbone for path in CONFIGS}
    heads = {name: backbone.auxiliary.head for name, backbone in backbones.items() if 'head' in backbone.auxiliary}
    heads = {name: head for name, head in heads.items() if head['type'] in ('FCOSHead', 'PaddedFCOSHead')}
    assert {'demo_faster_rcnn_r18_manpp', 'faster_rcnn_r50_manpp_coco', 'mask_rcnn_r50_manpp_coco'} <= heads.keys()
    init_default_scope('mmdet')
    truth = InstanceData(bboxes=torch.tensor([[20.0, 20, 40, 40], [100, 100, 300, 300]]), labels=torch.tensor([0, 1]))
    for name, head in heads.items():
        geometry = dict(in_channels=8, strides=[8], regress_ranges=((-1, 1e8),))
        built = MODELS.build(head | dict(type='PaddedFCOSHead', _scope_='mmdet') | geometry)
        targets = built.point_targets([(64, 64)], truth.bboxes[None], truth.labels[None], torch.float32)
        of_small, of_large = (int((targets.sign[0, label] < 0).sum()) for label in (0, 1))
        assert 4 <= of_small <= of_large <= 9, name


@pytest.mark.slow
@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_builds_at_full_size(path):
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    backbone = MODELS.build(config.model).backbone
    assert len(backbone.auxiliary) == len(backbone.cuts) >= 1
    assert not config.env_cfg.cudnn_benchmark  # its search holds many GB


@pytest.mark.slow
@pytest.mark.parametrize('path', TRAINED, ids=lambda path: path.stem)
def test_one_step_and_evaluation(path, scenes, tmp_path):
    run = runner(small(Config.fromfile(path), scenes, tmp_path / 'work'))
    blocks = len(run.model.backbone.auxiliary)
    run.train()
    logged = run.message_hub.log_scalars
    assert all(any(name.startswith(f'train/block{j}.') and 'loss' in name for name in logged) for j in range(blocks))
    metrics = {name: buffer.current() for name, buffer in logged.items() if name.startswith('val/')}
    scope = run.cfg.default_scope
    wanted = [dict(mmdet='val/coco/bbox_mAP', mmseg='val/mIoU', mmpretrain='val/accuracy/top1')[scope]]
    wanted += ['val/coco/segm_mAP'] if path.name.startswith('mask_rcnn') else []
    assert set(wanted) <= set(metrics)


@pytest.mark.slow
@pytest.mark.parametrize('path', [path for path in TRAINED if 'coco' in path.name], ids=lambda path: path.stem)
def test_empty_single_and_crowd_images(path, sparse_scenes, tmp_path):
    config = small(Config.fromfile(path), sparse_scenes, tmp_path / 'work')
    config.train_dataloader.update(batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False))
    config.train_dataloader.dataset.filter_cfg = None
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        config[key] = None
    run = runner(config)
    recorder = LossRecorder()
    run.register_hook(recorder)
    run.train()
    empty, single, crowd = recorder.losses
    for block in range(len(run.model.backbone.auxiliary)):
        classify, regress = (f'block{block}.loss_{name}' for name in ('cls', 'bbox'))
        assert empty[classify] > 0 and single[classify] > 0 and crowd[classify] > 0
        assert empty[regress] == 0 and crowd[regress] == 0
    networks = run.model.backbone.auxiliary
    assigners = [getattr(head, 'assigner', None) for network in networks for head in network.heads]
    if all(getattr(assigner, 'match_low_quality', True) for assigner in assigners):  # else it may have no anchor
        assert max(single[f'block{block}.loss_bbox'] for block in range(len(networks))) > 0
    assert all(value == value and abs(value) < 1e4 for losses in recorder.losses for value in losses.values())
