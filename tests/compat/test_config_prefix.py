import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from manpp_mm.compat import config_prefix
from manpp_mm.compat.config_prefix import config_folder, read_config
from manpp_mm.compat.mmpretrain import complete_loaders

UPSTREAM = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
BODY = """
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
model = dict(backbone=_base_.manpp_backbone)
custom_hooks = _base_.manpp_hooks
optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)
"""


def read(tmp_path: Path, *bases: str, body: str = BODY) -> Config:
    (tmp_path / 'config.py').write_text(f'_base_ = {list(bases)}\n{body}')
    return Config.fromfile(tmp_path / 'config.py')


def test_five_lines_make_an_upstream_detector_local(tmp_path):
    config = read(tmp_path, UPSTREAM, 'manpp_mm::_base_/detection.py')
    assert config.model.backbone.type == 'LocalResNet'
    assert config.model.backbone.depth == 50
    assert "'manpp_mm'" not in str(config.model)  # no scope of ours
    assert [hook.type for hook in config.custom_hooks][:2] == ['LocalLearningHook', 'MomentumHook']


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'manpp_mm::_base_/none\.py.*does not exist'):
        read(tmp_path, 'manpp_mm::_base_/none.py', body='')


def test_module_whose_package_mmengine_does_not_know(tmp_path, monkeypatch):
    monkeypatch.setattr(config_prefix, '_unknown_to_mmengine', lambda module: module == 'mmseg')
    config = read(tmp_path, 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', body='')
    assert config.model.type == 'EncoderDecoder'
    assert config.default_scope == 'mmseg'


def test_package_without_configs(monkeypatch, tmp_path):
    (tmp_path / 'bare').mkdir()
    (tmp_path / 'bare' / '__init__.py').write_text('')
    monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
    with pytest.raises(FileNotFoundError, match='bare is installed without its configs'):
        config_folder('bare')


def test_a_packages_config_by_its_name():
    found = read_config(UPSTREAM)
    assert (found.model.type, found.filename) == ('RetinaNet', f'{config_folder("mmdet")}/{UPSTREAM[7:]}')
    assert read_config('manpp_mm::faster_rcnn_r50_manpp_coco.py').model.backbone.type == 'LocalResNet'


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (
            'mmdet::retinanet/retinanet_r50_fpn_1_coco.py',
            r'mmdet has no such config; did you mean mmdet::retinanet/retinanet_r50_fpn_1x_coco.py\?',
        ),
        ('mmdet::retinanet_r50_fpn_1x_coco.py', r'did you mean mmdet::retinanet/retinanet_r50_fpn_1x_coco.py\?'),
        ('mmdet::nothing/of_the_kind_at_all.py', 'its configs are in .*mmdet/.mim/configs'),
        ('detectron::a.py', "unknown prefix 'detectron', use one of mmdet::, mmseg::, mmpretrain::, manpp_mm::"),
        ('nowhere.py', 'there is no config nowhere.py; for a config of a package, start with its name: mmdet::'),
    ],
)
def test_a_name_of_no_config(name, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        read_config(name)


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(config_prefix, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match='mmpretrain is not installed'):
        read_config('mmpretrain::resnet/resnet50_8xb32_in1k.py')


@pytest.mark.parametrize('workers', [0, 2])
def test_a_classifiers_loaders_are_as_mmpretrains_own_tools_have_them(workers):
    pytest.importorskip('mmpretrain')
    config = read_config('mmpretrain::resnet/resnet50_8xb32_in1k.py')
    config.train_dataloader.num_workers = workers
    complete_loaders(config)
    loader = config.train_dataloader
    assert (loader.collate_fn, loader.persistent_workers) == (dict(type='default_collate'), workers > 0)
    other = read_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    complete_loaders(other)
    assert 'collate_fn' not in other.train_dataloader
