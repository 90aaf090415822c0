"""The backbone of docs/new_backbone.md, as it stands there."""

import re
from pathlib import Path

import pytest
from helpers import FCOS, build, check_evaluation, check_parity, detection_batch, detector_config
from mmdet.models import RegNet
from mmdet.registry import MODELS

DOCUMENT = Path(__file__).parents[2] / 'docs' / 'new_backbone.md'
ARCH = dict(w0=8, wa=8.0, wm=2.0, group_w=8, depth=6, bot_mul=1.0)


@pytest.fixture(scope='module')
def local_regnet():
    code = re.search(r'```python\n(.*?)```', DOCUMENT.read_text(), re.S)[1]
    found: dict = {}
    exec(code, found)
    yield found['LocalRegNet']
    MODELS.module_dict.pop('LocalRegNet')


def test_evaluation_is_the_parents(local_regnet, monkeypatch):
    auxiliary = dict(projection=dict(out_channels=16), head=FCOS)
    local = local_regnet(arch=ARCH, cuts=[(0, 0), (1, 0)], auxiliary=auxiliary)
    check_evaluation(local, RegNet(arch=ARCH), monkeypatch)


def test_gradients_equal_the_naive_sum(local_regnet):
    config = detector_config()
    auxiliary = dict(projection=dict(out_channels=16), head=FCOS)
    config.model.backbone = dict(type='LocalRegNet', arch=ARCH, cuts=[(0, 0), (1, 0)], auxiliary=auxiliary)
    widths = RegNet(arch=ARCH).stage_widths
    config.model.neck.update(in_channels=list(widths), num_outs=5)
    model = build(config).double()
    assert [network.heads[0].strides for network in model.backbone.auxiliary] == [[8], [16]]
    check_parity(model, detection_batch(model))
