"""The members of the family on real models: each learns by the naive sum's gradients, and options do what they say."""

import pytest
import torch
from helpers import (
    FCOS,
    build,
    check_parity,
    detection_batch,
    detector_config,
    naive_loss,
    segmentation_batch,
    segmentor_config,
)
from runners import HOOKS, coco_runner_config, runner
from torch.nn import functional as F

FCN = dict(type='FCNHead', num_classes=4, channels=8, num_convs=1)
RETINA = dict(type='RetinaHead', num_classes=3, feat_channels=16, stacked_convs=1)
MEMBERS = {
    'MAN': dict(scaling=1),
    'fixed s': dict(scaling=0.5),
    'learnable branch only': dict(branches=['learnable']),
    'momentum branch only': dict(branches=['momentum']),
    'DGL': dict(branches=[]),
    'InfoPro': dict(branches=[], reconstruction=dict(loss_weight=0.5)),
    'MAN++ on InfoPro': dict(reconstruction=dict()),
    'weight of the block': dict(loss_weight=0.25),
}


@pytest.mark.parametrize('name', MEMBERS)
def test_detector(name):
    model = build(
        detector_config(auxiliary=dict(projection=dict(out_channels=16), head=FCOS, **MEMBERS[name]))
    ).double()
    names = check_parity(model, detection_batch(model))
    assert ('block0.loss_reconstruction' in names) == ('reconstruction' in MEMBERS[name])


@pytest.mark.parametrize('name', MEMBERS)
def test_segmentor(name):
    model = build(segmentor_config(auxiliary=dict(head=FCN, **MEMBERS[name]))).double()
    names = check_parity(model, segmentation_batch(model))
    assert ('block2.loss_reconstruction' in names) == ('reconstruction' in MEMBERS[name])


@pytest.mark.parametrize('task', ['detector', 'segmentor'])
def test_several_heads_with_weights(task):
    if task == 'detector':
        heads = [FCOS, dict(RETINA, weight=0.5)]
        model = build(detector_config(auxiliary=dict(projection=dict(out_channels=16), head=heads))).double()
        names = check_parity(model, detection_batch(model))
        assert {'block0.head0.loss_centerness', 'block1.head1.loss_bbox'} <= names
    else:
        heads = [FCN, dict(FCN, weight=0.5, channels=4)]
        model = build(segmentor_config(auxiliary=dict(head=heads, loss_resolution='label'))).double()
        names = check_parity(model, segmentation_batch(model))
        assert {'block0.head0.loss_ce', 'block2.head1.loss_ce', 'block2.head1.acc_seg'} <= names


def test_weights_scale_the_logged_losses_and_nothing_else():
    auxiliary = dict(head=[FCN, dict(FCN)], loss_resolution='label')
    model = build(segmentor_config(auxiliary=auxiliary), hooked=False).double()
    data = segmentation_batch(model)
    model.decode_head.dropout = None
    for network in model.backbone.auxiliary:
        for head in network.heads:
            head.dropout = None
    _, plain = naive_loss(model, data)
    for network in model.backbone.auxiliary:
        network.weights, network.loss_weight = [1.0, 0.5], 3.0
    _, weighted = naive_loss(model, data)
    for block in range(3):
        assert weighted[f'block{block}.head0.acc_seg'] == plain[f'block{block}.head0.acc_seg']
        for head, factor in enumerate((3.0, 1.5)):
            name = f'block{block}.head{head}.loss_ce'
            torch.testing.assert_close(weighted[name], factor * plain[name])


@pytest.mark.parametrize('head', [RETINA, FCOS])
def test_a_neck_gives_levels(head):
    neck = dict(type='FPN', out_channels=16, num_outs=3, add_extra_convs='on_output')
    model = build(detector_config(auxiliary=dict(neck=neck, head=head))).double()
    first = model.backbone.auxiliary[0].heads[0]
    strides = first.strides if head is FCOS else [s for s, _ in first.prior_generator.strides]
    assert list(strides) == [16, 32, 64]  # cut after layer2, the branches at layer3's stride
    if head is FCOS:
        assert [tuple(r) for r in first.regress_ranges] == [(-1, 128), (128, 256), (256, 1e8)]
    check_parity(model, detection_batch(model))


def test_without_branches_the_head_sees_the_blocks_own_output():
    model = build(detector_config(auxiliary=dict(branches=[], projection=dict(out_channels=16), head=FCOS)))
    assert [network.heads[0].strides for network in model.backbone.auxiliary] == [[8], [16]]
    assert model.backbone.momentum_pairs() == []


def test_reconstruction_by_hand():
    model = build(
        segmentor_config(auxiliary=dict(branches=[], head=FCN, reconstruction=dict(loss_weight=2.0)))
    ).double()
    data = segmentation_batch(model)
    images = data['inputs'] * model.data_preprocessor.std + model.data_preprocessor.mean
    backbone = model.backbone
    x = backbone.layer2(backbone.layer1(backbone.maxpool(backbone.stem(data['inputs']))))
    decoder = backbone.auxiliary[0].reconstruction
    logits = decoder.output(decoder.hidden(x))
    target = F.avg_pool2d(images / 255, 8)
    expected = 2.0 * F.binary_cross_entropy(logits.sigmoid(), target)
    _, log = model.parse_losses(model(**data, mode='loss'))
    torch.testing.assert_close(log['block0.loss_reconstruction'], expected, rtol=1e-6, atol=0)
    assert 0 <= target.min() <= target.max() <= 1


def test_dgl_needs_no_momentum_hook(tmp_path):
    auxiliary = dict(branches=[], projection=dict(out_channels=16), head=FCOS)
    config = coco_runner_config(tmp_path, auxiliary=auxiliary)
    config.custom_hooks = HOOKS[:1]
    run = runner(config)
    run.train()
    assert run.iter == 4


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(projection=dict(out_channels=8), neck=dict(type='FPN', out_channels=8, num_outs=1)), 'not both'),
        (dict(neck=dict(type='FPN', out_channels=8)), 'auxiliary.neck needs num_outs'),
        (dict(neck=dict(type='NoNeck', out_channels=8, num_outs=1)), "neck.type='NoNeck' is not registered"),
        (dict(neck=dict(type='FPN', in_channels=[8], out_channels=8, num_outs=1)), 'remove auxiliary.neck.in_channels'),
        (dict(loss_weight=0), 'auxiliary.loss_weight=0 must be a positive number'),
        (dict(reconstruction=dict(loss_weight=0)), 'auxiliary.reconstruction=None'),
        (dict(branches=['ema']), r"auxiliary.branches=\['ema'\] must be a list"),
        (dict(branches=['learnable'], scaling=1), 'auxiliary.scaling=1 needs two branches'),
        (dict(head=[]), r'auxiliary needs head=dict\(type=...\)'),
        (dict(head=FCOS | dict(width=8)), "auxiliary.head: .* cannot be built from .*'width'"),
        (dict(projection='1x1'), r"auxiliary.projection: '1' must be a dict\(out_channels=...\), or a list of them"),
        (dict(projection=dict(out_channels=8, kernel_size=(3, 3))), r'projection.kernel_size=\(3, 3\) must be an int'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(detector_config(auxiliary=dict(head=FCOS) | options))
