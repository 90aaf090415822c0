"""The padded head against MMDetection's own, and what it dispatches."""

import conftest  # noqa: F401  # what lets mmcv be imported in the spawned processes, too
import pytest
import torch
import torch.multiprocessing as multiprocessing
from helpers import detection_samples, padded_head
from mmdet.models import FCOSHead
from processes import free_port
from torch import Tensor, nn

from manpp_mm.auxiliary import padded_fcos_head
from manpp_mm.auxiliary.padded_fcos_head import PaddedFCOSHead, pad_instances
from manpp_mm.memory import StepCounts

ONE_LEVEL = dict(strides=[16], regress_ranges=((-1, 1e8),))


def pair(**kwargs: object) -> tuple[nn.Module, nn.Module]:
    """Upstream's head and ours with the same weights; distances start well above zero."""
    torch.manual_seed(0)
    ours = padded_head(**kwargs)
    with torch.no_grad():
        ours.conv_reg.bias.fill_(2)
    common = dict(num_classes=5, in_channels=16, feat_channels=32, stacked_convs=1)
    levels = dict(strides=[8, 16, 32], regress_ranges=((-1, 64), (64, 128), (128, 1e8)))
    upstream = FCOSHead(**common | levels | kwargs)
    upstream.load_state_dict(ours.state_dict())
    return upstream, ours


def losses_and_gradients(head: nn.Module, levels: list[Tensor], samples: list) -> tuple[dict, list[Tensor]]:
    leaves = [level.clone().requires_grad_() for level in levels]
    losses = head.loss(leaves, samples)
    sum(losses.values()).backward()
    return losses, [t.grad for t in (*leaves, *head.parameters())]


@pytest.mark.parametrize('counts', [[3, 4], [0, 5], [0, 0], [300, 2]])
@pytest.mark.parametrize('levels', [ONE_LEVEL, {}], ids=['one level', 'three'])
@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(center_sampling=True),
        dict(center_sampling=True, center_sample_radius=0.5),
        dict(norm_on_bbox=True, centerness_on_reg=True),
        dict(loss_bbox=dict(type='GIoULoss', loss_weight=2.0)),
        dict(loss_bbox=dict(type='IoULoss', mode='linear')),
        dict(loss_bbox=dict(type='IoULoss', mode='square')),
        dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=1.5, alpha=0.3, loss_weight=0.5)),
        dict(loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=3.0)),
    ],
    ids=str,
)
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-5), (torch.float32, 1e-5)], ids=str)
def test_losses_and_gradients_are_upstreams(options, levels, counts, dtype, tolerance):
    # Upstream's normalisers, points and distances are of float32 whatever the model's type is.
    upstream, ours = (head.to(dtype) for head in pair(**levels, **options))
    samples = detection_samples(counts, dtype=dtype)
    inputs = [torch.randn(2, 16, 256 // stride, 256 // stride, dtype=dtype) for stride in ours.strides]
    expected, gradients = losses_and_gradients(upstream, inputs, samples)
    found, own = losses_and_gradients(ours, inputs, samples)
    assert found.keys() == expected.keys()
    assert (expected['loss_bbox'] > 0) == (sum(counts) > 0)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7, check_dtype=False)
    for gradient, reference in zip(own, gradients, strict=True):
        difference = torch.linalg.vector_norm(gradient - reference)
        assert difference <= tolerance * torch.linalg.vector_norm(reference) + 1e-7


def test_under_autocast_the_loss_is_computed_in_float32():
    upstream, ours = pair(**ONE_LEVEL)
    samples, levels = detection_samples([3, 4]), [torch.randn(2, 16, 16, 16)]
    with torch.autocast('cpu', torch.bfloat16):
        expected, found = (head.loss(levels, samples) for head in (upstream, ours))
    assert {value.dtype for value in found.values()} == {torch.float32}
    for name, tolerance in (
        ('loss_bbox', 1e-5),
        ('loss_centerness', 1e-5),
        ('loss_cls', 1e-2),
    ):  # upstream's is bfloat16
        torch.testing.assert_close(found[name], expected[name].float(), rtol=tolerance, atol=0)


def test_many_boxes_are_compared_image_by_image(monkeypatch):
    _, ours = pair(center_sampling=True)
    samples, sizes = detection_samples([30, 2, 7]), [(32, 32), (16, 16), (8, 8)]
    boxes, labels = pad_instances([sample.gt_instances for sample in samples])
    whole = ours.point_targets(sizes, boxes, labels, torch.float32)
    monkeypatch.setattr(padded_fcos_head, '_AT_ONCE', 1000)
    for name, value in vars(ours.point_targets(sizes, boxes, labels, torch.float32)).items():
        assert torch.equal(value, vars(whole)[name]), name


def test_distances_that_overflow_in_the_background():
    upstream, ours = pair(**ONE_LEVEL, loss_bbox=dict(type='GIoULoss'))
    samples = detection_samples([1, 1])
    for head in (upstream, ours):
        with torch.no_grad():
            head.conv_reg.weight.zero_()
            head.conv_reg.bias.fill_(2)
    outs = [head((torch.zeros(2, 16, 16, 16),)) for head in (upstream, ours)]
    instances = [sample.gt_instances for sample in samples]
    background = ours.point_targets([(16, 16)], *pad_instances(instances), torch.float32).box_weights == 0
    found = []
    for head, (scores, boxes, centerness) in zip((upstream, ours), outs, strict=True):
        far = boxes[0].detach().flatten(2).masked_fill(background[:, None], 1e30).unflatten(2, (16, 16))
        losses = head.loss_by_feat(scores, [far], centerness, instances, [{}] * 2)
        found.append(losses['loss_bbox'])
    torch.testing.assert_close(found[1], found[0])


def test_half_the_operators_and_no_wait():
    upstream, ours = pair(**ONE_LEVEL, center_sampling=True)
    samples, levels = detection_samples([3, 4]), [torch.randn(2, 16, 16, 16)]
    counts = []
    for head in (upstream, ours):
        with StepCounts() as found:
            losses_and_gradients(head, levels, samples)
        counts.append(found)
    assert counts[0].synchronisations > 10  # the count sees upstream's
    assert counts[1].synchronisations == 0
    assert counts[1].operators <= 0.5 * counts[0].operators


def test_targets_are_made_once_for_heads_of_one_stride(monkeypatch):
    calls = []
    made = PaddedFCOSHead.point_targets
    monkeypatch.setattr(PaddedFCOSHead, 'point_targets', lambda *args: calls.append(1) or made(*args))
    samples, levels = detection_samples([3, 4]), [torch.randn(2, 16, 16, 16)]
    shared: dict = {}
    first, second = padded_head(**ONE_LEVEL), padded_head(**ONE_LEVEL)
    second.load_state_dict(first.state_dict())
    found = [head.loss(levels, samples, shared) for head in (first, second)]
    assert len(calls) == 1
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    padded_head(**ONE_LEVEL, center_sampling=True).loss(levels, samples, shared)
    padded_head(strides=[8], regress_ranges=((-1, 1e8),)).loss([torch.randn(2, 16, 32, 32)], samples, shared)
    assert len(calls) == 3


def one_rank(rank: int, port: int, results: str) -> None:
    torch.distributed.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    torch.manual_seed(7)
    samples = [detection_samples([6, 1]), detection_samples([0, 2])][rank]
    found = [head.loss([torch.full((2, 16, 16, 16), 0.5)], samples) for head in pair(**ONE_LEVEL)]
    torch.save([{name: value.detach() for name, value in losses.items()} for losses in found], f'{results}/{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_normalise_as_upstream(tmp_path):
    multiprocessing.spawn(one_rank, (free_port(), str(tmp_path)), nprocs=2)
    for rank in range(2):
        upstream, ours = torch.load(tmp_path / f'{rank}.pt')
        for name, value in upstream.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(loss_cls=dict(type='GHMC', bins=30, momentum=0.75, use_sigmoid=True)), 'loss_cls is a GHMC, but must be'),
        (dict(loss_bbox=dict(type='L1Loss')), "loss_bbox is a L1Loss, but must be an 'IoULoss' or a 'GIoULoss'"),
        (dict(loss_centerness=dict(type='MSELoss')), 'loss_centerness is a MSELoss, but must be'),
        (dict(loss_bbox=dict(type='IoULoss', reduction='sum')), "one with reduction='mean'"),
    ],
)
def test_other_losses_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        padded_head(**options)
