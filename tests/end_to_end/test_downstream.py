"""A project of its own builds on the wheel: it inherits a config, takes a fragment, registers an auxiliary head."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from processes import ROOT
from runners import write_coco, write_label_maps

pytestmark = pytest.mark.slow

DETECTION_DATA = """
data = dict(data_root='coco/', metainfo=dict(classes=('a', 'b', 'c')), filter_cfg=None)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root='coco/', metainfo=data['metainfo']))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='coco/annotations/instances_val2017.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
"""
ROI_HEAD = dict(bbox_head=dict(num_classes=3))
FILES = {
    # (a) a shipped config with other classes and data
    'inherits.py': f"""
_base_ = 'manpp_mm::faster_rcnn_r50_manpp_coco.py'
model = dict(backbone=dict(init_cfg=None, auxiliary=dict(head=dict(num_classes=3))), roi_head={ROI_HEAD})
{DETECTION_DATA}""",
    # (b) an upstream config, made block-local by the fragment
    'fragment.py': """
_base_ = ['mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'manpp_mm::_base_/segmentation.py']
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
model = dict(backbone=_base_.manpp_backbone, auxiliary_head=None, pretrained=None)
model['backbone']['auxiliary']['head']['num_classes'] = 4
model['decode_head'] = dict(num_classes=4)
model['data_preprocessor'] = dict(size=(64, 64))
custom_hooks = _base_.manpp_hooks
default_hooks = _base_.manpp_default_hooks
optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)
dataset = dict(
    _delete_=True, type='BaseSegDataset', data_root='labels/',
    data_prefix=dict(img_path='images', seg_map_path='labels'),
    metainfo=dict(classes=tuple('abcd'), palette=[[i, i, i] for i in range(4)]),
    pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')])
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dataset)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=1, val_interval=1)
""",
    # (c) an auxiliary head of its own
    'own_heads.py': """
from mmdet.models import FCOSHead
from mmdet.registry import MODELS


@MODELS.register_module()
class OwnHead(FCOSHead):
    def loss_by_feat(self, *args, **kwargs):
        losses = super().loss_by_feat(*args, **kwargs)
        return losses | dict(loss_own=losses.pop('loss_centerness'))
""",
    'own_head.py': f"""
_base_ = 'manpp_mm::faster_rcnn_r50_manpp_coco.py'
custom_imports = dict(imports=['manpp_mm', 'own_heads'], allow_failed_imports=False)
model = dict(
    backbone=dict(init_cfg=None, auxiliary=dict(head=dict(type='OwnHead', num_classes=3, train_cfg=None))),
    roi_head={ROI_HEAD})
{DETECTION_DATA}""",
}
KINDS = {'inherits': 'bbox_mAP', 'fragment': 'mIoU', 'own_head': 'bbox_mAP'}


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """The wheel that the sdist makes, unpacked."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    hidden = ('.git', '.venv*', 'data', 'work_dirs', 'build', '*.egg-info', '.*_cache', '__pycache__')
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*hidden))
    (source / 'data').mkdir()
    shutil.copy(ROOT / 'data/README.md', source / 'data')

    def build(kind, where):
        code = f'from setuptools import build_meta; build_meta.build_{kind}({str(folder)!r})'
        subprocess.run([sys.executable, '-c', code], cwd=where, check=True, capture_output=True)

    build('sdist', source)
    shutil.unpack_archive(next(folder.glob('*.tar.gz')), folder)
    (unpacked,) = (path for path in folder.glob('manpp*') if path.is_dir())
    files = {'README.md', 'LICENSE', 'Makefile', 'requirements.txt', '.ci/run', 'tests/runners.py', 'docs/choosing.md'}
    assert {file for file in files if not (unpacked / file).is_file()} == set()
    build('wheel', unpacked)
    shutil.unpack_archive(next(folder.glob('*.whl')), folder / 'site', 'zip')
    return folder / 'site'


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp('project')
    for name, text in FILES.items():
        (folder / name).write_text(text)
    write_coco(folder / 'coco', images=2)
    write_label_maps(folder / 'labels', images=2)
    return folder


def run(site: Path, project: Path, *command: object) -> str:
    own = dict(PYTHONPATH=f'{site}:{project}', OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=project, env=os.environ | own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_the_wheel_is_complete(site, project):
    found = run(site, project, '-c', 'import manpp_mm; print(manpp_mm.__file__)')
    assert Path(found.strip().splitlines()[-1]) == site / 'manpp_mm/__init__.py'
    for folder in ('configs', 'tools', 'manpp_mm'):
        files = {path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob('*.*') if path.is_file()}
        inside = site / 'manpp_mm' / ('' if folder == 'manpp_mm' else f'.mim/{folder}')
        missing = {path for path in files if not (inside / path).is_file() and '__pycache__' not in path.parts}
        assert missing == set(), folder


def test_model_index_names_every_config_for_real_data(site):
    index = yaml.safe_load((site / 'manpp_mm/.mim/model-index.yml').read_text())
    configs = {model['Config'] for model in index['Models']}
    expected = {f'configs/{path.name}' for path in (ROOT / 'configs').glob('*.py') if not path.name.startswith('demo')}
    assert configs == expected
    assert {model['Name'] for model in index['Models']} == {Path(config).stem for config in configs}
    assert {model['In Collection'] for model in index['Models']} == {index['Collections'][0]['Name']}


@pytest.mark.parametrize('name', KINDS)
def test_a_project_trains_and_evaluates(site, project, name):
    tools = site / 'manpp_mm/.mim/tools'
    short = ['default_hooks.logger.interval=1']
    if name != 'fragment':
        short += [
            'train_dataloader.dataset.pipeline.2.scale=(64,64)',
            'val_dataloader.dataset.pipeline.1.scale=(64,64)',
        ]
    train = [tools / 'train.py', f'{name}.py', '--work-dir', f'work/{name}', '--cfg-options', *short]
    run(site, project, *train)
    lines = [json.loads(line) for line in next((project / f'work/{name}').glob('*/vis_data/scalars.json')).open()]
    assert any('block0.scaling' in line and 'block1.scaling' in line and line['loss'] > 0 for line in lines)
    losses = {key for line in lines for key in line if key.startswith('block0.') and 'loss' in key}
    expected = {
        'inherits': {'block0.loss_cls', 'block0.loss_bbox', 'block0.loss_centerness'},
        'fragment': {'block0.loss_ce'},
        'own_head': {'block0.loss_cls', 'block0.loss_bbox', 'block0.loss_own'},
    }
    assert losses == expected[name]
    assert any(key.endswith(KINDS[name]) for line in lines for key in line)
    checkpoint = (project / f'work/{name}/last_checkpoint').read_text()
    output = run(site, project, tools / 'test.py', f'{name}.py', checkpoint, '--work-dir', 'work/test')
    assert re.search(rf'{KINDS[name]}: \d', output)
