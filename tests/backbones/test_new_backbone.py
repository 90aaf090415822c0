"""The backbones of docs/new_backbone.md, as they stand there."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from documents import blocks
from helpers import FCOS, build, check_evaluation, check_exact, check_parity, detection_batch, detector_config
from mmdet.models import PyramidVisionTransformerV2, RegNet
from mmdet.registry import MODELS

from manpp_mm.backbones import LocalBackbone
from manpp_mm.backbones.config import local_twin
from manpp_mm.hooks import LocalLearningHook

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
    codes = [code for code in blocks(DOCUMENT.read_text()) if re.search(r'^(class|def) ', code, re.M)]
    for code in codes:
        exec(code, found)
    yield {name: (found[name], code) for name, code in zip(CASES, codes, strict=False)} | dict(compare=found['compare'])
    for name in CASES:
        MODELS.module_dict.pop(name)


@pytest.mark.parametrize('name', CASES)
def test_evaluation_is_the_parents(backbones, name, monkeypatch):
    plain, options, cuts, _, lines = CASES[name]
    own, code = backbones[name]
    assert own.plain is plain
    assert len([line for line in code.splitlines() if line.strip() and 'import' not in line]) <= lines
    check_evaluation(own(**options, cuts=cuts, auxiliary=AUXILIARY), plain(**options), monkeypatch)


def test_a_shipped_class_comes_before_ones_own(backbones):
    assert {own.plain for own, _ in (backbones[name] for name in CASES)} == {RegNet, PyramidVisionTransformerV2}
    for plain in (RegNet, PyramidVisionTransformerV2):
        assert local_twin(plain, 'mmdet').__module__ == 'manpp_mm.registry.mmdet'


@pytest.mark.parametrize('name', CASES)
def test_the_pages_own_check(backbones, name):
    _, options, cuts, *_ = CASES[name]
    own, _ = backbones[name]
    still = options | (dict(drop_path_rate=0.0) if 'drop_path_rate' in options else {})
    backbones['compare'](own, cuts, **still)

    class Wrong(own):
        def run_stem(self, images):
            return super().run_stem(3 * images)

    with pytest.raises(AssertionError):
        backbones['compare'](Wrong, cuts, **still)


def wrong_units(own, change):
    """A class whose unit (1, 0) says something else of itself."""

    class Wrong(own):
        def units(self):
            return (replace(u, **change) if u.cut == (1, 0) else u for u in super().units())

    return Wrong


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(stride=4),
            r'unit \(1, 0\) declares 16 channels at stride 4, but its output for images of \(64, 64\) pixels',
        ),
        (
            dict(channels=8),
            r'unit \(1, 0\) declares 8 channels at stride 8, .* 16 channels and \(8, 8\)',
        ),
    ],
)
def test_units_that_say_something_else(backbones, change, message):
    _, options, cuts, *_ = CASES['BlockwisePVTv2']
    own, _ = backbones['BlockwisePVTv2']
    config = detector_config()
    auxiliary = dict(branches=[], head=FCOS)
    config.model.backbone = dict(type='BlockwisePVTv2', **options, cuts=cuts, auxiliary=auxiliary)
    config.model.neck.update(in_channels=[8, 16, 16, 32], num_outs=5)
    model = build(config, hooked=False)
    model.backbone = wrong_units(own, change)(**options, cuts=cuts, auxiliary=auxiliary).train()
    LocalLearningHook().apply(model)
    with pytest.raises(RuntimeError, match=message):
        model(**detection_batch(model), mode='loss')


def test_classes_that_say_too_little(backbones):
    plain, options, cuts, *_ = CASES['BlockwisePVTv2']
    own, _ = backbones['BlockwisePVTv2']

    class Silent(LocalBackbone, plain):
        units, stem_parts, run_stem = own.units, own.stem_parts, own.run_stem

    with pytest.raises(
        ValueError, match='Silent must set auxiliary_type, DetectionAuxiliary, SegmentationAuxiliary or'
    ):
        Silent(**options, cuts=cuts)

    class Endless(own):
        def units(self):
            return [replace(unit, output=None) for unit in super().units()]

    with pytest.raises(ValueError, match=r'outputs of stages \[\], but model.backbone.out_indices is \[0, 1, 2, 3\]'):
        Endless(**options, cuts=cuts, auxiliary=AUXILIARY)


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
