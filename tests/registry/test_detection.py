import copy

import pytest
import torch
from helpers import (
    AUXILIARY,
    FCOS,
    build,
    check_evaluation,
    check_parity,
    detection_batch,
    detector_config,
    gradients,
)
from mmdet.models import ResNet

from manpp_mm.backbones import plain_model
from manpp_mm.registry.mmdet import LocalResNet


@pytest.mark.parametrize('backbone', [{}, dict(frozen_stages=1), dict(norm_eval=False), dict(with_cp=True)])
def test_gradients_equal_the_naive_sum(backbone):
    model = build(detector_config(**backbone)).double()
    data = detection_batch(model)
    check_parity(model, data)


@pytest.mark.parametrize(
    'backbone', [{}, dict(frozen_stages=1), dict(norm_eval=False), dict(with_cp=True), dict(cuts=[(0, 0), (2, 0)])]
)
def test_the_task_trains_the_unit_before_each_lateral(backbone):
    model = build(detector_config(lateral_gradient=True, **backbone)).double()
    check_parity(model, detection_batch(model))


def test_the_task_trains_no_other_unit_of_an_earlier_block():
    model = build(detector_config(norm_eval=False)).double()
    start, data, found = copy.deepcopy(model.state_dict()), detection_batch(model), {}
    for lateral in (False, True):
        model.load_state_dict(start)
        model.zero_grad()
        model.backbone.lateral_gradient = lateral
        model.backbone.forget_blocks()
        torch.manual_seed(0)
        model.parse_losses(model(**data, mode='loss'))[0].backward()
        found[lateral] = gradients(model.backbone), {name: b.clone() for name, b in model.backbone.named_buffers()}
    received = {name: g for name, g in found[False][0].items() if g is not None}
    changed = {name for name, g in received.items() if not torch.equal(g, found[True][0][name])}
    assert {name.rsplit('.', 2)[0] for name in changed} == {'layer1.1', 'layer2.1', 'layer3.1'}
    assert all(torch.equal(b, found[True][1][name]) for name, b in found[False][1].items())


def test_logged_loss_is_the_sum_of_the_logged_losses():
    model = build(detector_config())
    _, log = model.parse_losses(model(**detection_batch(model), mode='loss'))
    terms = [value for name, value in log.items() if 'loss' in name and name != 'loss']
    assert {f'block{j}.{n}' for j in (0, 1) for n in ('loss_cls', 'loss_bbox', 'loss_centerness')} <= set(log)
    torch.testing.assert_close(log['loss'], sum(terms))


@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152])
@pytest.mark.parametrize('options', [{}, dict(deep_stem=True, avg_down=True, num_stages=3, out_indices=(2,))])
def test_evaluation_is_the_parents_and_runs_no_auxiliary_network(depth, options, monkeypatch):
    options = dict(num_stages=4, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)) | options
    stages = options['num_stages']
    options.update(strides=options['strides'][:stages], dilations=options['dilations'][:stages])
    local = LocalResNet(depth=depth, base_channels=8, cuts=[(0, 1), (1, 0)], auxiliary=AUXILIARY, **options)
    plain = ResNet(depth=depth, base_channels=8, **options)
    check_evaluation(local, plain, monkeypatch)


def test_plain_checkpoint_loads_with_nothing_missing_but_the_auxiliary_networks():
    config = detector_config()
    local = build(config, hooked=False)
    config.model = plain_model(config)
    plain = build(config, hooked=False)
    assert set(local.state_dict()) - set(plain.state_dict()) == {
        name for name in local.state_dict() if name.startswith('backbone.auxiliary.')
    }
    missing, unexpected = local.load_state_dict(plain.state_dict())
    assert (missing, unexpected) == ([], [])
    assert local.backbone.sync_auxiliary()
    for network, (unit,) in zip(local.backbone.auxiliary, local.backbone.copied_units(), strict=True):
        for branch in (network.branches.learnable, network.branches.momentum):
            for name, value in unit.state_dict().items():
                assert torch.equal(branch.state_dict()[name], value)


def test_own_checkpoint_keeps_its_branches():
    first, second = (build(detector_config(), hooked=False) for _ in range(2))
    with torch.no_grad():
        first.backbone.auxiliary[0].branches.momentum.conv1.weight.fill_(3)
    second.load_state_dict(first.state_dict())
    assert not second.backbone.sync_auxiliary()
    assert (second.backbone.auxiliary[0].branches.momentum.conv1.weight == 3).all()


def test_checkpoint_of_other_cuts_is_refused():
    first = build(detector_config(), hooked=False)
    second = build(detector_config(cuts=[(1, 1)]), hooked=False)
    for a, b in [(first, second), (second, first)]:
        with pytest.raises(RuntimeError, match=r"other cuts .* 'backbone.auxiliary.'"):
            a.load_state_dict(b.state_dict())


def test_a_checkpoint_of_other_classes_keeps_its_branches():
    from mmengine.runner.checkpoint import load_state_dict

    first = build(detector_config(auxiliary=dict(AUXILIARY, head=dict(FCOS, num_classes=7))), hooked=False)
    second = build(detector_config(), hooked=False)
    load_state_dict(second, first.state_dict())  # as the Runner loads; reports the sizes that differ
    source, target = (m.backbone.auxiliary[0] for m in (first, second))
    assert torch.equal(source.branches.momentum.conv1.weight, target.branches.momentum.conv1.weight)
    assert torch.equal(source.heads[0].conv_reg.weight, target.heads[0].conv_reg.weight)
    assert not second.backbone.sync_auxiliary()


def test_geometry_follows_from_the_cut():
    backbone = LocalResNet(
        depth=50,
        cuts=[(0, 0), (0, 2), (2, 1)],
        auxiliary=dict(projection=dict(out_channels=32, kernel_size=3, stride=2), head=FCOS),
    )
    assert [a.projection.in_channels for a in backbone.auxiliary] == [256, 512, 1024]
    assert [a.heads[0].strides for a in backbone.auxiliary] == [[8], [16], [32]]
    network = LocalResNet(depth=18, cuts=[(1, 1)], auxiliary=dict(head=dict(type='RetinaHead', num_classes=3)))
    head = network.auxiliary[0].heads[0]
    assert head.in_channels == 256
    assert head.prior_generator.strides == [(16, 16)]


@pytest.mark.parametrize(
    ('cuts', 'auxiliary', 'pooling', 'strides'),
    [
        ([(0, 0), (0, 2), (1, 1), (2, 1), (3, 0)], dict(stride=16), [4, 2, 2, 1, 1], [16, 16, 16, 16, 32]),
        ([(0, 2), (1, 1)], dict(stride=16, branches=[]), [4, 2], [16, 16]),
        ([(0, 0), (1, 1)], dict(stride=16, projection=dict(out_channels=8, stride=2)), [4, 2], [32, 32]),
        ([(1, 1)], dict(stride=None), [1], [8]),
        ([(3, 0)], dict(stride=16), [1], [32]),  # one dict for all, planned cuts among them
    ],
)
def test_heads_run_at_the_stride_that_is_set_or_a_coarser_one_of_their_own(cuts, auxiliary, pooling, strides):
    backbone = LocalResNet(depth=50, cuts=cuts, auxiliary=dict(head=FCOS) | auxiliary)
    assert [network.pooling for network in backbone.auxiliary] == pooling
    assert [network.heads[0].strides for network in backbone.auxiliary] == [[stride] for stride in strides]
    size = [network.pooling * 4 for network in backbone.auxiliary]
    for network, side, block in zip(backbone.auxiliary, size, backbone.blocks(), strict=False):
        end = block.units[-1]
        y = network.features(torch.rand(1, end.channels, side, side))
        assert y.shape[-1] * network.heads[0].strides[0] == side * end.stride


@pytest.mark.parametrize('stride', [None, 8, 32])
def test_gradients_at_other_strides_equal_the_naive_sum(stride):
    options = dict(cuts=[(0, 1), (1, 0)], auxiliary=dict(AUXILIARY, stride=stride))
    model = build(detector_config(**options)).double()
    check_parity(model, detection_batch(model, size=128))


def test_an_image_smaller_than_what_is_pooled():
    model = build(detector_config(auxiliary=dict(AUXILIARY, stride=256)))
    with pytest.raises(RuntimeError, match=r'auxiliary.stride pools 16 x 16 pixels .* is 8 x 8 here'):
        model(**detection_batch(model), mode='loss')


@pytest.mark.parametrize('name', ['PaddedFCOSHead', 'FCOSHead', 'RetinaHead', 'ATSSHead', 'GFLHead'])
@pytest.mark.parametrize('items', [[3, 3], [1, 0], [0, 0]])
def test_heads_train_with_derived_defaults(name, items):
    head = dict(type=name, num_classes=3, feat_channels=32, stacked_convs=1)
    if name in ('ATSSHead', 'GFLHead'):
        head.update(loss_bbox=dict(type='GIoULoss'))
    if name == 'GFLHead':
        head.update(loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0))
    model = build(detector_config(auxiliary=dict(projection=dict(out_channels=16), head=head)))
    loss, _ = model.parse_losses(model(**detection_batch(model, items=items), mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in model.backbone.parameters() if p.requires_grad)


def test_positives_of_a_large_object_overlap_it():
    """A large box on one level: MaxIoU's `gt_max_assign_all` would take anchors of an IoU under 0.3."""
    from mmengine.structures import InstanceData

    backbone = LocalResNet(depth=18, cuts=[(1, 1)], auxiliary=dict(head=dict(type='RetinaHead', num_classes=3)))
    head = backbone.auxiliary[0].heads[0]
    priors = head.prior_generator.grid_priors([(32, 32)], device='cpu')[0]
    truth = InstanceData(bboxes=torch.tensor([[20.0, 30.0, 490.0, 480.0]]), labels=torch.tensor([0]))
    assigned = head.assigner.assign(InstanceData(priors=priors), truth)
    positives = priors[assigned.gt_inds > 0]
    assert len(positives) <= 2  # at most the anchors that overlap best, not each anchor inside the box


def test_pretrained_trunk_leaves_the_heads_initialised(tmp_path):
    torch.save(ResNet(depth=18).state_dict(), tmp_path / 'trunk.pth')
    backbone = LocalResNet(
        depth=18,
        cuts=[(1, 1)],
        auxiliary=AUXILIARY,
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'trunk.pth')),
    )
    backbone.init_weights()
    bias = backbone.auxiliary[0].heads[0].conv_cls.bias
    torch.testing.assert_close(torch.sigmoid(bias), torch.full_like(bias, 0.01))  # the focal prior
    assert torch.equal(backbone.conv1.weight, torch.load(tmp_path / 'trunk.pth')['conv1.weight'])


def test_norm_eval_spares_projection_and_head():
    norm = dict(type='BN', requires_grad=True)
    auxiliary = dict(projection=dict(out_channels=16, norm_cfg=norm), head=dict(FCOS, norm_cfg=norm))
    backbone = LocalResNet(depth=18, norm_eval=True, cuts=[(1, 1)], auxiliary=auxiliary).train()
    network = backbone.auxiliary[0]
    assert network.projection.bn.training
    assert network.heads[0].cls_convs[0].bn.training
    assert not network.branches.learnable.bn1.training
    assert not network.branches.momentum.bn1.training
    assert not backbone.eval().auxiliary[0].heads[0].training


class TestBadInput:
    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (dict(cuts=[(1, 9)]), r'cuts=.*\(1, 9\) is out of range'),
            (dict(cuts=[(2, 1), (1, 1)]), 'must be in ascending order'),
            (dict(cuts=[(1, 1), (1, 1)]), 'must be in ascending order'),
            (dict(cuts=[(3, 1)]), 'last unit'),
            (dict(cuts=[(0, 1)], frozen_stages=1), r'all units up to \(0, 1\) are frozen \(frozen_stages\)'),
            (dict(local_blocks=9), 'local_blocks=9 exceeds the 8 units that train'),
            (dict(local_blocks=0), 'positive integer'),
            (dict(), 'exactly one of local_blocks and cuts'),
            (dict(local_blocks=2, cuts=[(1, 1)]), 'both are set'),
            (dict(local_blocks=2, auxiliary=None), r'needs model.backbone.auxiliary='),
            (dict(local_blocks=3, auxiliary=[AUXILIARY]), 'auxiliary has 1 entries for 2 cuts'),
            (dict(local_blocks=2, auxiliary=dict(head=dict(type='NoHead'))), "auxiliary.head.type='NoHead'"),
            (dict(local_blocks=2, auxiliary=dict(head=dict(type='FPN'))), r'has no loss\(\)'),
            (dict(local_blocks=2, auxiliary=dict(head=dict(type='FCOSHead'))), 'needs num_classes'),
            (dict(local_blocks=2, auxiliary=dict(head=dict(FCOS, in_channels=3))), 'remove auxiliary.head.in_channels'),
            (dict(local_blocks=2, auxiliary=dict(head=dict(FCOS, strides=[8]))), 'remove auxiliary.head.strides'),
            (dict(local_blocks=2, auxiliary=dict(head=dict(type='YOLOXHead', num_classes=3))), 'needs a train_cfg'),
            (dict(local_blocks=2, auxiliary=dict(head=dict(type='TOODHead', num_classes=3))), 'needs a train_cfg'),
            (dict(local_blocks=2, auxiliary=dict(head=FCOS, projection=dict())), 'projection needs out_channels'),
            (dict(local_blocks=2, auxiliary=dict()), 'auxiliary needs head'),
            (
                dict(cuts=[(1, 0)], auxiliary=dict(AUXILIARY, stride=8.0)),
                r'auxiliary.stride=8.0 must be a positive number of pixels',
            ),
            (dict(cuts=[(1, 0)], auxiliary=dict(AUXILIARY, stride=0)), r'auxiliary.stride=0 must be a positive'),
            (
                dict(cuts=[(0, 0), (1, 0)], auxiliary=dict(AUXILIARY, stride=12)),
                r'auxiliary.stride=12 must be a multiple of .* 8 pixels: 8 or 16',
            ),
            (
                dict(cuts=[(1, 0), (2, 0)], auxiliary=dict(AUXILIARY, stride=2)),
                r'auxiliary.stride=2 is finer than the 4 pixels at which the head of any block runs',
            ),
            (
                dict(cuts=[(1, 0), (2, 0)], frozen_stages=1, auxiliary=dict(AUXILIARY, stride=4)),
                r'auxiliary.stride=4 is finer than the 8 pixels at which the head of any block runs',
            ),
            (
                dict(cuts=[(1, 0), (2, 0)], auxiliary=[AUXILIARY, dict(AUXILIARY, stride=8)]),
                r'auxiliary.stride=8 is finer than the 16 pixels at which the head of block 1 runs',
            ),
            (
                dict(local_blocks=2, auxiliary=dict(head=FCOS, projection=dict(out_channels=8, stride=(2, 2)))),
                'must be an integer',
            ),
        ],
    )
    def test_configs(self, options, message):
        with pytest.raises(ValueError, match=message):
            LocalResNet(depth=18, **(dict(auxiliary=AUXILIARY) | options))

    def test_training_without_the_hook(self):
        model = build(detector_config(), hooked=False)
        with pytest.raises(RuntimeError, match='LocalLearningHook'):
            model(**detection_batch(model), mode='loss')

    def test_second_call_in_one_forward(self):
        model = build(detector_config())
        original = model.extract_feat
        model.extract_feat = lambda x: (original(x), original(x))[1]
        with pytest.raises(RuntimeError, match='called twice'):
            model(**detection_batch(model), mode='loss')
        model.extract_feat = original
        model(**detection_batch(model), mode='loss')  # nothing is left behind
