"""Each of the packages is enough by itself."""

import subprocess
import sys

import pytest

from manpp_mm.compat import mmpretrain

BLOCK = """
import importlib.abc, importlib.util, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in BLOCKED:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
original = importlib.util.find_spec
def find_spec(name, package=None):
    return None if name.split('.')[0] in BLOCKED else original(name, package)
importlib.util.find_spec = find_spec
sys.meta_path.insert(0, Block())
import manpp_mm
import mmengine.registry
"""
DETECTION = """
from mmdet.registry import MODELS
backbone = MODELS.build(dict(type='LocalResNet', depth=18, cuts=[(1, 1)], auxiliary=dict(
    head=dict(type='FCOSHead', num_classes=2, feat_channels=32, stacked_convs=1))))
"""
SEGMENTATION = """
from mmseg.registry import MODELS
for name in ('LocalResNet', 'LocalResNetV1c', 'LocalResNetV1d'):
    backbone = MODELS.build(dict(type=name, depth=18, cuts=[(1, 1)], auxiliary=dict(
        head=dict(type='FCNHead', num_classes=2, channels=8))))
"""


CLASSIFICATION = """
from mmpretrain.registry import MODELS
backbone = MODELS.build(dict(type='LocalResNet', depth=18, cuts=[(1, 1)], auxiliary=dict(
    head=dict(type='LinearClsHead', num_classes=2))))
"""
ALONE = dict(mmdet=DETECTION, mmseg=SEGMENTATION, mmpretrain=CLASSIFICATION)


@pytest.mark.parametrize('package', ALONE)
def test_a_package_alone(package):
    pytest.importorskip(package)
    blocked = [other for other in ALONE if other != package]
    check = '\nassert not set(BLOCKED) & set(sys.modules)\nassert len(backbone.auxiliary) == 1\nprint("works")'
    source = f'BLOCKED = {blocked!r}\n' + BLOCK + ALONE[package] + check
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', source], capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1:] == ['works'], done.stderr  # the fork's MMPretrain prints a line


def test_a_package_that_fails_is_said(monkeypatch):
    monkeypatch.setattr(mmpretrain, 'find_spec', lambda name: object())
    monkeypatch.setattr(mmpretrain, 'import_module', lambda name: int('none'))
    with pytest.warns(
        UserWarning, match=r'mmpretrain is installed but cannot be imported \(ValueError: .*LocalConvNeXt'
    ):
        assert mmpretrain.models.__wrapped__() is None
