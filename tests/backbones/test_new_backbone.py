"""The backbones of docs/new_backbone.md, as they stand there."""

import re
from pathlib import Path

import pytest
from helpers import FCOS, build, check_evaluation, check_exact, check_parity, detection_batch, detector_config
from mmdet.models import PyramidVisionTransformerV2, RegNet
from mmdet.registry import MODELS

DOCUMENT = Path(__file__).parents[2] / 'docs' / 'new_backbone.md'
AUXILIARY = dict(projection=dict(out_channels=16), head=FCOS)
REGNET = dict(arch=dict(w0=8, wa=8.0, wm=2.0, group_w=8, depth=6, bot_mul=1.0))
PVT = dict(embed_dims=8, num_layers=[2, 2, 2, 2], num_heads=[1, 2, 2, 4], drop_path_rate=0.3)
CASES = {
    'BlockwiseRegNet': (RegNet, REGNET, [(0, 0), (1, 0)], [8, 16], 10),
    'BlockwisePVTv2': (PyramidVisionTransformerV2, PVT, [(1, 0), (2, 0)], [8, 16], 30),
}


@pytest.fixture(scope='module')
def backbones():
    found: dict = {}
    codes = re.findall(r'```python\n(.*?)```', DOCUMENT.read_text(), re.S)
    for code in codes:
        exec(code, found)
    yield {name: (found[name], code) for name, code in zip(CASES, codes, strict=True)}
    for name in CASES:
        MODELS.module_dict.pop(name)


@pytest.mark.parametrize('name', CASES)
def test_evaluation_is_the_parents(backbones, name, monkeypatch):
    plain, options, cuts, _, lines = CASES[name]
    own, code = backbones[name]
    assert own.plain is plain
    assert len([line for line in code.splitlines() if line.strip() and 'import' not in line]) <= lines
    check_evaluation(own(**options, cuts=cuts, auxiliary=AUXILIARY), plain(**options), monkeypatch)


@pytest.mark.parametrize('gradient', ['local', 'exact'])
@pytest.mark.parametrize('name', CASES)
def test_gradients_equal_the_naive_sum(backbones, name, gradient):
    plain, options, cuts, strides, _ = CASES[name]
    config = detector_config()
    config.model.backbone = dict(type=name, **options, cuts=cuts, auxiliary=AUXILIARY, gradient=gradient)
    widths = list(plain(**options).stage_widths) if name == 'BlockwiseRegNet' else [8, 16, 16, 32]
    config.model.neck.update(in_channels=widths, num_outs=5)
    model = build(config).double()
    if gradient == 'local':
        assert [network.heads[0].strides for network in model.backbone.auxiliary] == [[stride] for stride in strides]
        check_parity(model, detection_batch(model))
    else:
        check_exact(model, detection_batch(model))
