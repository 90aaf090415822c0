"""One half works without the other."""

import subprocess
import sys

import pytest

BLOCK = """
import importlib.abc, importlib.util, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == BLOCKED:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
original = importlib.util.find_spec
def find_spec(name, package=None):
    return None if name.split('.')[0] == BLOCKED else original(name, package)
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


@pytest.mark.parametrize(('blocked', 'code'), [('mmseg', DETECTION), ('mmdet', SEGMENTATION)])
def test_one_half_alone(blocked, code):
    check = f'\nassert {blocked!r} not in sys.modules\nassert len(backbone.auxiliary) == 1\nprint("works")'
    source = f'BLOCKED = {blocked!r}\n' + BLOCK + code + check
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', source], capture_output=True, text=True)
    assert done.stdout.strip() == 'works', done.stderr
