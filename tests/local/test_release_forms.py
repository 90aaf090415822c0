"""The forms of the authors' release, each against a step by hand, and branches of several units."""

import copy

import pytest
import torch
from helpers import build, check_parity, detection_batch, detector_config, segmentation_batch, segmentor_config
from mmengine.optim import OptimWrapper
from torch import nn
from torch.nn import functional as F

from manpp_mm.hooks import MomentumHook
from manpp_mm.local import Branches

FCN = dict(type='FCNHead', num_classes=4, channels=8, num_convs=1)


def conv(inputs: int = 2, outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))


@pytest.mark.parametrize('target', [1, 0])
def test_what_weight_decay_pulls_s_towards(target):
    branches = Branches(conv(), scaling_decays_to=target).double()
    with torch.no_grad():
        branches.learnable[0].weight.mul_(2)
    x = torch.rand(2, 2, 5, 5, dtype=torch.float64)
    optimizer = torch.optim.SGD(branches.parameters(), lr=0.1, weight_decay=0.3)
    gradient = (branches.learnable(x) - branches.momentum(x)).sum().item()
    assert float(branches.scaling) == 1
    branches(x).sum().backward()
    optimizer.step()
    # s starts at 1, so that decay towards 1 does nothing in this step.
    expected = 1 - 0.1 * (gradient + 0.3 * (1 if target == 0 else 0))
    assert float(branches.scaling) == pytest.approx(expected, rel=1e-12)
    optimizer.zero_grad()
    for p in branches.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    before = float(branches.scaling)
    optimizer.step()
    assert float(branches.scaling) - target == pytest.approx((before - target) * (1 - 0.1 * 0.3), rel=1e-12)


@pytest.mark.parametrize('before_step', [False, True])
def test_when_momentum_branches_move(before_step):
    model = build(segmentor_config()).double()
    (branch, unit), *_ = model.backbone.momentum_pairs()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.05))
    MomentumHook(momentum=0.9, before_step=before_step).apply(model, wrapper)
    gamma, theta = branch.bn2.weight.clone(), unit.bn2.weight.clone()
    for _ in range(2):
        loss, _ = model.parse_losses(model(**segmentation_batch(model), mode='loss'))
        wrapper.update_params(loss)
        moved = unit.bn2.weight.clone()
        gamma = 0.9 * gamma + 0.1 * (theta if before_step else moved)
        torch.testing.assert_close(branch.bn2.weight, gamma, rtol=1e-12, atol=1e-15)
        assert not torch.equal(theta, moved)
        theta = moved


def test_an_independent_start():
    config = segmentor_config(auxiliary=dict(head=FCN, start='independent'))
    model = build(config, hooked=False)
    trunk = {name: p.clone() for name, p in model.backbone.named_parameters() if not name.startswith('auxiliary.')}
    network, ((unit,), *_) = model.backbone.auxiliary[0], model.backbone.copied_units()
    before = network.branches.momentum.conv1.weight.clone()
    assert not model.backbone.sync_auxiliary()  # nothing was copied
    three = [network.branches.learnable.conv1.weight, network.branches.momentum.conv1.weight, unit.conv1.weight]
    assert torch.equal(three[1], before)
    for index, own in enumerate(three):
        for other in three[:index]:
            assert abs(F.cosine_similarity(own.flatten(), other.flatten(), dim=0)) < 0.2
    assert all(torch.equal(value, trunk[name]) for name, value in model.backbone.named_parameters() if name in trunk)


def test_branches_of_two_units():
    model = build(
        detector_config(
            auxiliary=dict(
                units=2,
                stride=16,
                projection=dict(out_channels=16),
                head=dict(type='PaddedFCOSHead', num_classes=3, feat_channels=32, stacked_convs=1),
            )
        )
    ).double()
    backbone = model.backbone
    assert [network.copied for network in backbone.auxiliary] == [[(2, 0), (2, 1)], [(3, 0), (3, 1)]]
    units = [backbone.layer3[0], backbone.layer3[1], backbone.layer4[0], backbone.layer4[1]]
    assert [unit for _, unit in backbone.momentum_pairs()] == units
    branches = backbone.auxiliary[0].branches
    x = torch.rand(2, 32, 8, 8, dtype=torch.float64)
    expected = backbone.layer3[1](backbone.layer3[0](x))
    torch.testing.assert_close(branches.momentum(x), expected, rtol=1e-12, atol=1e-12)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.05))
    MomentumHook(momentum=0.9).apply(model, wrapper)
    before = [copy.deepcopy(pair[0].conv2.weight) for pair in backbone.momentum_pairs()]
    loss, _ = model.parse_losses(model(**detection_batch(model), mode='loss'))
    wrapper.update_params(loss)
    for start, (branch, unit) in zip(before, backbone.momentum_pairs(), strict=True):
        torch.testing.assert_close(branch.conv2.weight, 0.9 * start + 0.1 * unit.conv2.weight, rtol=1e-12, atol=1e-15)


def test_units_sampled_from_the_later_stages():
    auxiliary = dict(units=[(1, 0), (2, 0), (3, 0)], head=FCN)
    model = build(segmentor_config(cuts=[(0, 0), (1, 1), (3, 0)], auxiliary=auxiliary)).double()
    copied = [network.copied for network in model.backbone.auxiliary]
    assert copied == [[(1, 0), (2, 0), (3, 0)], [(2, 0), (3, 0)], [(3, 1)]]  # none is left: the next
    check_parity(model, segmentation_batch(model))


def test_what_the_branches_give_is_pooled():
    auxiliary = dict(stride=32, pool_branches=False, head=FCN)
    model = build(segmentor_config(auxiliary=auxiliary)).eval()
    network = model.backbone.auxiliary[0]
    x = torch.rand(2, 32, 8, 8)
    torch.testing.assert_close(network.features(x), F.avg_pool2d(network.branches(x), 4))
    network.pool_branches = True
    assert not torch.allclose(network.features(x), F.avg_pool2d(network.branches(x), 4))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(units=0), r'auxiliary.units=0 must be a positive number, or places'),
        (dict(units=True), 'auxiliary.units=True must be a positive number'),
        (dict(units='2'), "auxiliary.units='2' must be a positive number"),
        (dict(units=[1, 2]), r'each place is a pair \(stage, index\) of integers'),
        (dict(units=[(2, 0), (1, 0)]), 'places must be in ascending order without repetition'),
        (dict(units=[(7, 0)]), r'there is no unit \(7, 0\); the last one is \(3, 1\)'),
        (dict(units=[(3, 0)]), r'unit \(3, 0\) takes 64 channels at stride 8, but \(1, 1\) gives 32 at 8'),
        (dict(start='random'), "auxiliary.start='random' must be 'unit' or 'independent'"),
        (dict(scaling_decays_to=2), 'auxiliary.scaling_decays_to=2 must be 1, or 0 with two branches'),
        (dict(scaling_decays_to=0, branches=['learnable']), 'auxiliary.scaling_decays_to=0 must be 1'),
    ],
)
def test_forms_that_are_none(options, message):
    with pytest.raises(ValueError, match=message):
        build(segmentor_config(auxiliary=dict(head=FCN) | options), hooked=False)


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (dict(frozen_stages=0), r'cuts=\[\(-1, 0\), \(1, 1\)\]: the stem is frozen \(frozen_stages\)'),
        (dict(cuts=[(-1, 1)]), r'\(-1, 1\) is out of range'),
        (dict(cuts=[(1, 0), (-1, 0)]), r'\(-1, 0\) is out of range'),
    ],
)
def test_a_stem_that_is_no_block(keys, message):
    with pytest.raises(ValueError, match=message):
        build(detector_config(**dict(cuts=[(-1, 0), (1, 1)]) | keys), hooked=False)


def test_a_stem_that_is_a_block_of_a_detector():
    model = build(detector_config(cuts=[(-1, 0), (1, 1)])).double()
    first, second, _ = model.backbone.blocks()
    assert [unit.cut for unit in first.units] == [(-1, 0)]
    assert second.units[0].cut == (0, 0)
    assert model.backbone.auxiliary[0].copied == [(0, 0)]
    check_parity(model, detection_batch(model))
    copied = copy.deepcopy(model)
    assert copied.backbone.blocks()[0].parameters[0] is copied.backbone.conv1.weight
