import pytest
import torch
from helpers import build, check_evaluation, check_parity, segmentation_batch, segmentor_config
from mmseg.models import ResNet, ResNetV1c, ResNetV1d

from manpp_mm.backbones import plain_model
from manpp_mm.registry.mmseg import LocalResNet, LocalResNetV1c, LocalResNetV1d

HEAD = dict(type='FCNHead', num_classes=4, channels=8, num_convs=1)
DILATED = dict(dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1))


@pytest.mark.parametrize('backbone', [{}, dict(frozen_stages=1), dict(norm_eval=True), dict(with_cp=True)])
def test_gradients_equal_the_naive_sum(backbone):
    model = build(segmentor_config(**backbone)).double()
    data = segmentation_batch(model)
    assert check_parity(model, data) == {f'block{j}.loss_ce' for j in range(3)}


def test_a_loss_at_the_label_maps_resolution_is_the_heads_own():
    model = build(segmentor_config(auxiliary=dict(head=HEAD, loss_resolution='label'))).double()
    data = segmentation_batch(model)
    assert check_parity(model, data) == {f'block{j}.{name}' for j in range(3) for name in ('loss_ce', 'acc_seg')}


@pytest.mark.parametrize('stride', [None, 16, 32])
def test_gradients_at_other_strides_equal_the_naive_sum(stride):
    model = build(segmentor_config(auxiliary=dict(head=HEAD, stride=stride))).double()
    check_parity(model, segmentation_batch(model))
    pooled = {None: [1, 1, 1], 16: [2, 2, 2], 32: [4, 4, 4]}[stride]
    assert [network.pooling for network in model.backbone.auxiliary] == pooled


@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152])
@pytest.mark.parametrize(
    ('pair', 'options'),
    [
        ((LocalResNet, ResNet), dict(deep_stem=True, avg_down=False)),
        ((LocalResNetV1c, ResNetV1c), dict(contract_dilation=True, **DILATED)),
        ((LocalResNetV1d, ResNetV1d), dict(contract_dilation=True, **DILATED)),
    ],
)
def test_evaluation_is_the_parents_and_runs_no_auxiliary_network(depth, pair, options, monkeypatch):
    options = dict(depth=depth, base_channels=8, stem_channels=8, **options)
    if depth >= 50 and 'dilations' in options:
        options['multi_grid'] = (1, 2, 4)
    local = pair[0](cuts=[(1, 1), (2, 0)], auxiliary=dict(head=HEAD), **options)
    plain = pair[1](**options)
    check_evaluation(local, plain, monkeypatch)


def test_plain_checkpoint_loads_with_nothing_missing_but_the_auxiliary_networks():
    config = segmentor_config()
    local = build(config, hooked=False)
    config.model = plain_model(config)
    plain = build(config, hooked=False)
    assert set(local.state_dict()) - set(plain.state_dict()) == {
        name for name in local.state_dict() if name.startswith('backbone.auxiliary.')
    }
    assert local.load_state_dict(plain.state_dict()) == ([], [])


@pytest.mark.parametrize(
    'head',
    [
        dict(type='FCNHead', num_convs=1, kernel_size=1),
        dict(type='PSPHead', pool_scales=(1, 2)),
        dict(type='ASPPHead', dilations=(1, 2)),
    ],
)
def test_any_decode_head_gives_a_local_loss(head):
    model = build(segmentor_config(auxiliary=dict(head=dict(head, num_classes=4, channels=64))))
    loss, _ = model.parse_losses(model(**segmentation_batch(model), mode='loss'))
    loss.backward()
    assert all(p.grad is not None for p in model.backbone.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    'name', ['pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py']
)
def test_any_segmentor_becomes_local(name):
    model = build(segmentor_config(name=name))
    loss, _ = model.parse_losses(model(**segmentation_batch(model), mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_upernet_becomes_local():
    config = segmentor_config(name='upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py')
    model = build(config)
    loss, _ = model.parse_losses(model(**segmentation_batch(model), mode='loss'))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_loss_at_feature_resolution():
    model = build(segmentor_config(auxiliary=dict(head=dict(HEAD, dropout_ratio=0), loss_resolution='feature')))
    data, network = segmentation_batch(model), model.backbone.auxiliary[0]
    labels = torch.stack([sample.gt_sem_seg.data for sample in data['data_samples']])
    found = network(torch.rand(2, 32, 8, 8), data['data_samples'])
    torch.manual_seed(0)
    x = torch.rand(2, 32, 8, 8)
    network.eval()
    logits = network.heads[0].forward([network.projection(network.branches(x))])
    expected = torch.nn.functional.cross_entropy(logits, labels[:, 0, 4::8, 4::8])  # at the cells' centres
    torch.testing.assert_close(network(x, data['data_samples'])['loss_ce'], expected)
    assert set(found) == {'loss_ce'}
    assert torch.isfinite(found['loss_ce'])
    assert labels.shape[-1] == 64  # the model's own head still sees the full label map
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()


def test_norm_of_the_head_is_the_backbones():
    norm = dict(type='BN', eps=1e-3)
    backbone = LocalResNetV1c(depth=18, norm_cfg=norm, cuts=[(1, 1)], auxiliary=dict(head=HEAD))
    assert backbone.auxiliary[0].heads[0].convs[0].norm.eps == 1e-3
    assert backbone.auxiliary[0].heads[0].in_channels == 256


def test_stride_of_a_dilated_backbone():
    backbone = LocalResNetV1c(depth=18, local_blocks=4, auxiliary=dict(head=HEAD), **DILATED)
    assert [backbone.stage_geometry(s) for s in range(4)] == [(64, 4), (128, 8), (256, 8), (512, 8)]


@pytest.mark.parametrize(
    ('head', 'message'),
    [
        (dict(HEAD, type='FCOSHead'), r"auxiliary.head.type='FCOSHead' is not registered in mmseg"),
        (dict(type='FCNHead', channels=8), 'needs num_classes'),
        (dict(HEAD, in_index=2), 'remove auxiliary.head.in_index'),
        (dict(HEAD, in_channels=2), 'remove auxiliary.head.in_channels'),
    ],
)
def test_bad_head(head, message):
    with pytest.raises(ValueError, match=message):
        LocalResNetV1c(depth=18, local_blocks=2, auxiliary=dict(head=head))


def test_bad_resolution():
    with pytest.raises(ValueError, match=r"auxiliary.loss_resolution='half' must be 'label' or 'feature'"):
        LocalResNetV1c(depth=18, local_blocks=2, auxiliary=dict(head=HEAD, loss_resolution='half'))
