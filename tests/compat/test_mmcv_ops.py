"""The kernels behind ``mmcv.ops`` against independent references, gradients included."""

import sys

import mmcv.ops
import pytest
import torch
import torchvision
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
from torch.autograd import gradcheck

import manpp_mm.compat.mmcv_ops as stand_in

pytestmark = pytest.mark.skipif(
    not isinstance(sys.modules['mmcv._ext'], stand_in._StandIn), reason='mmcv has compiled ops of its own'
)

# The last two overlap by 0.29 as points and by 0.33 as pixels (offset 1).
BOXES = torch.tensor(
    [[1.0, 2, 20, 22], [2, 3, 21, 23], [30, 30, 50, 44], [1, 2, 20, 24], [60, 60, 69, 69], [65, 60, 74, 69]]
)
SCORES = torch.tensor([0.3, 0.9, 0.8, 0.5, 0.7, 0.6])
ROIS = torch.tensor([[0.0, 1, 2, 20, 22], [1, 4, 4, 30, 18], [1, 0, 0, 31, 31]], dtype=torch.float64)


def brute_force_nms(boxes, scores, threshold, offset):
    kept = []
    for i in scores.argsort(descending=True).tolist():
        ok = True
        for j in kept:
            left, right = torch.maximum(boxes[i, :2], boxes[j, :2]), torch.minimum(boxes[i, 2:], boxes[j, 2:])
            overlap = (right - left + offset).clamp(min=0).prod()
            areas = [(boxes[k, 2:] - boxes[k, :2] + offset).prod() for k in (i, j)]
            ok &= bool(overlap / (sum(areas) - overlap) <= threshold)
        if ok:
            kept.append(i)
    return kept


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.3, 0.8])
def test_nms(offset, threshold):
    dets, kept = mmcv.ops.nms(BOXES, SCORES, threshold, offset=offset)
    assert kept.tolist() == brute_force_nms(BOXES, SCORES, threshold, offset)
    assert torch.equal(dets, torch.cat([BOXES[kept], SCORES[kept, None]], 1))


def test_batched_nms_with_score_threshold_and_maximum():
    dets, kept = mmcv.ops.batched_nms(
        BOXES, SCORES, torch.tensor([0, 1, 0, 0, 0, 0]), dict(type='nms', iou_threshold=0.5, max_num=3)
    )
    assert kept.tolist() == [1, 2, 4]
    assert dets.shape == (3, 5)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align(aligned, sampling_ratio):
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    found = mmcv.ops.roi_align(x, ROIS, (3, 4), 0.5, sampling_ratio, 'avg', aligned)
    expected = torchvision.ops.roi_align(x, ROIS, (3, 4), 0.5, sampling_ratio or -1, aligned)
    assert torch.equal(found, expected)
    weight = torch.rand_like(found)
    a, b = (torch.autograd.grad((out * weight).sum(), x)[0] for out in (found, expected))
    assert torch.equal(a, b)


def test_roi_align_of_half_precision_runs_in_float32():
    x = torch.rand(2, 3, 16, 16).bfloat16().requires_grad_()
    found = mmcv.ops.roi_align(x, ROIS.bfloat16(), (3, 3), 0.5, 2, 'avg', True)
    found.sum().backward()
    assert found.dtype == x.grad.dtype == torch.bfloat16
    expected = torchvision.ops.roi_align(x.float(), ROIS.float(), (3, 3), 0.5, 2, True)
    torch.testing.assert_close(found, expected.bfloat16())


def test_roi_align_by_maximum_is_refused():
    with pytest.raises(RuntimeError, match='compiled mmcv'):
        mmcv.ops.roi_align(torch.rand(2, 3, 16, 16), ROIS.float(), 3, 0.5, 2, 'max', True)


def test_roi_pool():
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    found = mmcv.ops.roi_pool(x, ROIS, (3, 4), 0.5)
    expected = torchvision.ops.roi_pool(x, ROIS, (3, 4), 0.5)
    assert torch.equal(found, expected)
    weight = torch.rand_like(found)
    a, b = (torch.autograd.grad((out * weight).sum(), x)[0] for out in (found, expected))
    assert torch.equal(a, b)


@pytest.mark.parametrize('with_weight', [False, True])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_sigmoid_focal_loss(with_weight, reduction):
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 3, 4, 1, 4, 2])  # 4 is the background
    weight = torch.rand(4, dtype=torch.float64) if with_weight else None
    found = mmcv.ops.sigmoid_focal_loss(x, target, 2.0, 0.25, weight, reduction)
    one_hot = torch.nn.functional.one_hot(target, 5)[:, :4]
    expected = py_sigmoid_focal_loss(x, one_hot, gamma=2.0, alpha=0.25, reduction='none')
    if with_weight:
        expected = expected * torch.cat([weight, weight.new_ones(1)])[target][:, None]
    # mmcv's mean is over the rows, not over all elements.
    expected = {'none': expected, 'sum': expected.sum(), 'mean': expected.sum() / 6}[reduction]
    torch.testing.assert_close(found, expected)
    factor = torch.rand_like(found)
    a, b = (torch.autograd.grad((out * factor).sum(), x)[0] for out in (found, expected))
    torch.testing.assert_close(a, b)


GEOMETRY = [dict(), dict(stride=2, padding=1, dilation=2), dict(groups=2, deform_groups=2, padding=(0, 1))]


def deformable_inputs(groups=1, deform_groups=1, stride=1, padding=0, dilation=1):
    x = torch.rand(2, 4, 7, 8, dtype=torch.float64)
    weight = torch.rand(6, 4 // groups, 3, 3, dtype=torch.float64)
    size = torch.nn.functional.conv2d(x, weight, None, stride, padding, dilation, groups).shape[2:]
    offset = torch.randn(2, 18 * deform_groups, *size, dtype=torch.float64)
    mask = torch.rand(2, 9 * deform_groups, *size, dtype=torch.float64)
    return [t.requires_grad_() for t in (x, offset, weight, mask)]


@pytest.mark.parametrize('geometry', GEOMETRY)
def test_deform_conv(geometry):
    x, offset, weight, _ = deformable_inputs(**geometry)
    options = dict(stride=1, padding=0, dilation=1, groups=1, deform_groups=1) | geometry

    def run(x, offset, weight):
        return mmcv.ops.deform_conv2d(x, offset, weight, *options.values(), False, 2)

    expected = torchvision.ops.deform_conv2d(
        x, offset, weight, None, options['stride'], options['padding'], options['dilation']
    )
    torch.testing.assert_close(run(x, offset, weight), expected)
    assert gradcheck(run, (x, offset, weight))


@pytest.mark.parametrize('geometry', GEOMETRY)
@pytest.mark.parametrize('with_bias', [True, False])
def test_modulated_deform_conv(geometry, with_bias):
    x, offset, weight, mask = deformable_inputs(**geometry)
    bias = torch.rand(6, dtype=torch.float64, requires_grad=True) if with_bias else None
    options = dict(stride=1, padding=0, dilation=1, groups=1, deform_groups=1) | geometry

    def run(x, offset, mask, weight, bias):
        return mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *options.values())

    expected = torchvision.ops.deform_conv2d(
        x, offset, weight, bias, options['stride'], options['padding'], options['dilation'], mask
    )
    torch.testing.assert_close(run(x, offset, mask, weight, bias), expected)
    assert gradcheck(run, (x, offset, mask, weight, bias))


def test_deformable_attention_on_a_gpu():
    """The function that mmcv calls on CUDA, here on a CPU, against the operators that it calls there."""
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

    shapes = torch.tensor([[4, 6], [2, 3]])
    inputs = [
        each.double().requires_grad_()
        for each in (torch.rand(2, 30, 2, 8), torch.rand(2, 5, 2, 2, 4, 2), torch.rand(2, 5, 2, 2, 4))
    ]
    value, locations, weights = inputs
    starts = torch.tensor([0, 24])
    found = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)
    expected = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    assert torch.equal(found, expected)
    gradient = torch.rand_like(found)
    for own, reference in zip(
        torch.autograd.grad(found, inputs, gradient), torch.autograd.grad(expected, inputs, gradient), strict=True
    ):
        torch.testing.assert_close(own, reference)
        assert own.abs().sum() > 0


def test_another_op_names_itself_and_the_way_out():
    with pytest.raises(RuntimeError, match=r"mmcv's op 'softnms' needs a compiled mmcv"):
        mmcv.ops.soft_nms(BOXES, SCORES)


def test_mmengine_believes_that_ops_exist():
    from mmengine.utils.dl_utils import mmcv_full_available

    assert mmcv_full_available()


def test_a_compiled_mmcv_wins(monkeypatch):
    compiled = object()
    monkeypatch.setitem(sys.modules, 'mmcv._ext', compiled)
    stand_in.apply()
    assert sys.modules['mmcv._ext'] is compiled
