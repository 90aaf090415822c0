"""The other families: what holds for a ResNet holds for them, in every package that has them."""

import inspect
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers import (
    build,
    check_evaluation,
    check_exact,
    check_parity,
    classifier_config,
    detector_config,
    drawn_for,
    segmentor_config,
    upstream,
    with_backbone,
)
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from manpp_mm.backbones import LocalBackbone, plain_model
from manpp_mm.backbones.config import local_twin, with_cuts
from manpp_mm.backbones.vit import ClassToken
from manpp_mm.memory import TrainingStep
from manpp_mm.memory.choose import choose_plan
from manpp_mm.memory.fit import check_request
from manpp_mm.memory.predict import Predictor, methods_for
from manpp_mm.memory.profile import ExactProfile, LocalProfile
from manpp_mm.methods import Way, apply_way
from manpp_mm.mode import LOCAL
from manpp_mm.publish import publish

DOCUMENT = Path(__file__).parents[2] / 'docs/backbones.md'
PYRAMID = dict(
    embed_dims=8, num_layers=[2, 2, 2, 2], num_heads=[1, 2, 2, 4], sr_ratios=[2, 2, 1, 1], drop_path_rate=0.3
)
CONVNEXT = dict(
    type='LocalConvNeXt', arch=dict(depths=[2, 2, 2, 2], channels=[8, 16, 16, 32]), out_indices=[0, 1, 2, 3],
    gap_before_final_norm=False, layer_scale_init_value=1.0, drop_path_rate=0.3,
)  # fmt: skip
VIT = dict(
    type='LocalVisionTransformer', img_size=64, embed_dims=16, num_layers=4, num_heads=2, out_indices=(0, 1, 2, 3),
    drop_path_rate=0.3,
)  # fmt: skip
CIFAR = dict(type='LocalCIFARResNet', depth=14, base_channels=8)
TOKENS = dict(
    type='LocalVisionTransformer', img_size=64, drop_path_rate=0.3, out_type='cls_token', out_indices=[3],
    arch=dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32),
    auxiliary=dict(class_token=True, head=dict(type='VisionTransformerClsHead', num_classes=4)),
)  # fmt: skip
ENDS = [(0, 1), (1, 0), (2, 1)]
"""A cut at a stage's end, one inside a stage, and another end."""

# For each family: its package, the channels of its maps, the backbone.
FAMILIES = {
    'PVT': ('mmdet', [8, 16, 16, 32], dict(PYRAMID, type='LocalPyramidVisionTransformer', pretrain_img_size=32)),
    'PVTv2': ('mmdet', [8, 16, 16, 32], dict(PYRAMID, type='LocalPyramidVisionTransformerV2')),
    'ConvNeXt, detector': ('mmdet', [8, 16, 16, 32], CONVNEXT),
    'RegNet': (
        'mmdet', [16, 32, 80, 160],
        dict(type='LocalRegNet', arch=dict(w0=16, wa=20.0, wm=2.2, group_w=16, depth=9, bot_mul=1.0)),
    ),
    'Res2Net': (
        'mmdet', [32, 64, 128, 256], dict(type='LocalRes2Net', depth=50, scales=2, base_width=8, base_channels=8)
    ),
    'ResNeSt, detector': (
        'mmdet', [32, 64, 128, 256], dict(type='LocalResNeSt', depth=50, base_channels=8, stem_channels=8)
    ),
    'CSPDarknet': ('mmdet', [16, 32, 64], dict(type='LocalCSPDarknet', deepen_factor=0.33, widen_factor=0.0625)),
    'CSPNeXt': ('mmdet', [16, 32, 64], dict(type='LocalCSPNeXt', deepen_factor=0.33, widen_factor=0.0625)),
    'MiT': ('mmseg', [8, 16, 16, 32], dict(PYRAMID, type='LocalMixVisionTransformer')),
    'ViT': ('mmseg', [16] * 4, VIT),
    'ConvNeXt, segmentor': ('mmseg', [8, 16, 16, 32], CONVNEXT),
    'ResNeSt, segmentor': (
        'mmseg', [32, 64, 128, 256], dict(type='LocalResNeSt', depth=50, base_channels=8, stem_channels=8)
    ),
    'ResNet, classifier': ('mmpretrain', [128], dict(type='LocalResNet', depth=18, base_channels=16, stem_channels=16)),
    'ResNeXt, classifier': (
        'mmpretrain', [256],
        dict(type='LocalResNeXt', depth=50, base_channels=8, stem_channels=8, groups=4, width_per_group=2),
    ),
    'ResNet_CIFAR': (
        'mmpretrain', [64], dict(type='LocalResNet_CIFAR', depth=18, base_channels=8, stem_channels=8)
    ),
    'CIFARResNet': ('mmpretrain', [32], CIFAR),
    'ViT, classifier': ('mmpretrain', [16], TOKENS),
    'Swin, classifier': (
        'mmpretrain', [128],
        dict(type='LocalSwinTransformer', arch=dict(embed_dims=16, depths=[2] * 4, num_heads=[1, 2, 2, 4]),
             window_size=2, drop_path_rate=0.3),
    ),
    'ConvNeXt, classifier': (
        'mmpretrain', [32], CONVNEXT | dict(out_indices=[3], gap_before_final_norm=True)
    ),
}  # fmt: skip
CUTS = dict.fromkeys(FAMILIES, ENDS) | {
    'ViT': [(0, 0), (0, 2)],
    'RegNet': [(0, 0), (2, 0), (2, 2)],
    'CIFARResNet': [(-1, 0), (0, 1), (1, 0)],
    'ViT, classifier': [(0, 0), (0, 2)],
}


def config_of(name: str, **backbone: object) -> Config:
    scope, channels, options = FAMILIES[name]
    if 'ConvNeXt' in name or scope == 'mmpretrain':
        pytest.importorskip('mmpretrain')
    make = dict(mmdet=detector_config, mmseg=segmentor_config, mmpretrain=classifier_config)[scope]
    channels = channels[: len(backbone.get('out_indices', channels))]
    return with_backbone(make(), channels, **dict(options, cuts=CUTS[name]) | backbone)


def model_of(name: str, **backbone: object):
    config = config_of(name, **backbone)
    model = build(config).double()
    return model, drawn_for(model, config.default_scope)


@pytest.mark.parametrize('options', [{}, dict(with_cp=True), dict(cuts=None, local_blocks=2)])
@pytest.mark.parametrize('name', FAMILIES)
def test_gradients_equal_the_naive_sum(name, options):
    model, data = model_of(name, **options)
    assert check_parity(model, data)
    assert model.backbone.units_checkpointed == bool(options.get('with_cp'))


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('name', FAMILIES)
def test_exact_gradients_are_end_to_end_trainings(name, with_cp):
    check_exact(*model_of(name, gradient='exact', with_cp=with_cp))


@pytest.mark.parametrize('name', FAMILIES)
def test_cut_after_every_unit(name):
    model, data = model_of(name, gradient='exact')
    model, data = model_of(name, cuts=model.backbone.trained_units[:-1])
    check_parity(model, data)


VARIANTS = {
    'ViT': [
        dict(with_cls_token=False),
        dict(final_norm=True),
        dict(pre_norm=True),
        dict(out_indices=(1, 3)),
        dict(auxiliary=dict(stride=32, head=dict(type='FCNHead', num_classes=4, channels=8, norm_cfg=dict(type='BN')))),
    ],
    'PVT': [dict(use_abs_pos_embed=False)],
    'ConvNeXt, detector': [dict(frozen_stages=1, cuts=[(1, 0)])],
    'CSPNeXt': [dict(frozen_stages=1, cuts=[(1, 0)]), dict(norm_eval=True), dict(use_depthwise=True)],
    'CSPDarknet': [dict(frozen_stages=0), dict(use_depthwise=True)],
    'RegNet': [dict(frozen_stages=1, cuts=[(2, 0)])],
    'ResNet, classifier': [
        dict(cuts=[(-1, 0)]),
        dict(cuts=[(-1, 0), (0, 0)], deep_stem=True, with_cp=True),
        dict(
            cuts=[(-1, 0), *ENDS],
            auxiliary=dict(
                units=2, stride=16, head=dict(type='LinearClsHead', num_classes=4), reconstruction=dict(channels=4)
            ),
        ),
        dict(
            cuts=[(0, 0), (0, 1), (1, 0)],
            auxiliary=dict(units=[(1, 0), (2, 0)], head=dict(type='LinearClsHead', num_classes=4)),
        ),
        dict(auxiliary=dict(stride=16, pool_branches=False, head=dict(type='LinearClsHead', num_classes=4))),
        dict(auxiliary=dict(scaling_decays_to=0, head=dict(type='LinearClsHead', num_classes=4))),
    ],
    'ViT, classifier': [
        dict(
            out_type='avg_featmap', with_cls_token=False, auxiliary=dict(head=dict(type='LinearClsHead', num_classes=4))
        ),
        dict(out_type='avg_featmap', pre_norm=True, cuts=[(-1, 0), (0, 1)]),
        dict(
            final_norm=False,
            auxiliary=dict(units=2, stride=32, class_token=True, head=dict(type='LinearClsHead', num_classes=4)),
        ),
    ],
    'Swin, classifier': [dict(use_abs_pos_embed=True, img_size=32), dict(frozen_stages=1, cuts=[(2, 0)])],
    'ConvNeXt, classifier': [dict(gap_before_final_norm=False, cuts=[(-1, 0), (1, 0)])],
}


@pytest.mark.parametrize(('name', 'options'), [(name, each) for name, found in VARIANTS.items() for each in found])
@pytest.mark.parametrize('gradient', ['local', 'exact'])
def test_options_of_a_family(name, options, gradient):
    model, data = model_of(name, **options, gradient=gradient)
    check_parity(model, data) if gradient == 'local' else check_exact(model, data)


@pytest.mark.parametrize('name', FAMILIES)
def test_evaluation_is_the_parents_and_runs_no_auxiliary_network(name, monkeypatch):
    config = config_of(name)
    init_default_scope(config.default_scope)
    local = MODELS.build(config.model.backbone)
    check_evaluation(local, MODELS.build(plain_model(config).backbone), monkeypatch)


@pytest.mark.parametrize('name', FAMILIES)
def test_a_parents_checkpoint_loads_and_the_branches_follow(name):
    config = config_of(name)
    local = build(config, hooked=False)
    config.model = plain_model(config)
    plain = build(config, hooked=False)
    assert type(plain.backbone) is type(local.backbone).plain
    assert local.load_state_dict(plain.state_dict()) == ([], [])
    assert local.backbone.sync_auxiliary()
    for network, (unit,) in zip(local.backbone.auxiliary, local.backbone.copied_units(), strict=True):
        for branch in (network.branches.learnable, network.branches.momentum):
            for key, value in unit.state_dict().items():
                assert torch.equal(branch.state_dict()[key], value)


@pytest.mark.parametrize('name', FAMILIES)
def test_a_pretrained_file_starts_trunk_and_branches(name, tmp_path):
    """A file as the package's own configs name it: of a whole model, or of the backbone alone."""
    config = config_of(name)
    init_default_scope(config.default_scope)
    plain = MODELS.build(plain_model(config).backbone)
    state = {
        key: torch.rand_like(value) if value.is_floating_point() else value for key, value in plain.state_dict().items()
    }
    path, init = tmp_path / 'pretrained.pth', dict(type='Pretrained', checkpoint=str(tmp_path / 'pretrained.pth'))
    if name in ('PVT', 'PVTv2', 'ViT'):  # which load themselves
        torch.save(dict(state_dict=state), path)
        if name != 'ViT':
            config.model.backbone.convert_weights = False
    else:
        torch.save(dict(state_dict={f'backbone.{key}': value for key, value in state.items()}), path)
        init['prefix'] = 'backbone.'
    config.model.backbone.init_cfg = init
    backbone = build(config, hooked=False).backbone
    for key, value in state.items():
        assert torch.equal(backbone.state_dict()[key], value), key
    assert backbone.sync_auxiliary()
    for network, (unit,) in zip(backbone.auxiliary, backbone.copied_units(), strict=True):
        for key, value in unit.state_dict().items():
            assert torch.equal(network.branches.momentum.state_dict()[key], value)
        assert all(torch.isfinite(p).all() for p in network.heads.parameters())


@pytest.mark.parametrize('name', FAMILIES)
def test_the_plain_config_is_made_local_and_plain_again(name):
    config = config_of(name)
    kind = config.model.backbone.type
    config.model = plain_model(config)
    assert 'Local' not in config.model.backbone.type
    assert config.model.backbone.get('auxiliary') is None
    local = apply_way(config, Way('manpp', LOCAL, tuple(CUTS[name])))
    assert local.model.backbone.type.rpartition('.')[2] == kind
    assert plain_model(local).backbone.type == config.model.backbone.type
    model = build(local, hooked=False)
    assert model.backbone.cuts == CUTS[name]


@pytest.mark.slow
@pytest.mark.parametrize('gradient', ['local', 'exact'])
@pytest.mark.parametrize('name', FAMILIES)
def test_a_plan_needs_what_was_predicted(name, gradient):
    config = config_of(name, gradient=gradient, cuts=[])
    size = (128, 256) if name != 'ViT' else (320, 640)
    profile = (LocalProfile if gradient == 'local' else ExactProfile)(config)
    plan = choose_plan(profile.plans(2, size)[1:], 0)
    config.model.backbone = with_cuts(config.model.backbone, plan.cuts)
    assert plan.peak_bytes == pytest.approx(TrainingStep(config, gradient, 2, size).peak_bytes(), rel=0.1)


@pytest.mark.parametrize('name', FAMILIES)
def test_what_is_published_is_the_plain_model(name, tmp_path):
    config = config_of(name)
    model = build(config, hooked=False)
    meta = dict(cfg=config.pretty_text, dataset_meta=dict(classes=('a', 'b', 'c')))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'trained.pth')
    published = torch.load(publish(tmp_path / 'trained.pth', tmp_path / 'model.pth'), weights_only=True)
    config.model = plain_model(config)
    plain = build(config, hooked=False)
    plain.load_state_dict(published['state_dict'])  # strict
    for key, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])


def groups_of(name: str, optim_wrapper: dict) -> dict[str, dict]:
    """Each parameter's group of the optimizer, made local by itself."""
    config = config_of(name)
    config.model = plain_model(config)
    config.optim_wrapper = optim_wrapper | dict(type='OptimWrapper')
    local = apply_way(config, Way('manpp', LOCAL, tuple(CUTS[name])))
    model = build(local, hooked=False)
    wrapper = build_optim_wrapper(model, local.optim_wrapper)
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: group for group in wrapper.optimizer.param_groups for p in group['params']}


def test_learning_rates_by_depth_take_auxiliary_networks_for_heads():
    pytest.importorskip('mmpretrain')
    theirs = upstream('mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py').optim_wrapper
    found = groups_of('ConvNeXt, detector', theirs)
    assert found['backbone.stages.0.0.depthwise_conv.weight']['lr'] < 0.75 * theirs.optimizer.lr
    own = {name: group for name, group in found.items() if name.startswith('backbone.auxiliary.')}
    assert len(own) > 10 and not any('momentum' in name for name in own)
    assert all(group['lr'] == theirs.optimizer.lr for group in own.values())
    norms = [name for name in own if 'block.norm' in name]
    assert norms and all(own[name]['weight_decay'] == 0 for name in norms)


def test_norms_of_branches_do_not_decay_where_upstreams_do_not():
    theirs = upstream('mmseg::segformer/segformer_mit-b2_8xb1-160k_cityscapes-1024x1024.py').optim_wrapper
    found = groups_of('MiT', theirs)
    own = {name: group for name, group in found.items() if name.startswith('backbone.auxiliary.')}
    norms = {name for name in own if '.norm' in name and '.branches.' in name}
    assert len(norms) > 10
    assert {name for name, group in own.items() if group['weight_decay'] == 0} == norms
    assert {group['lr'] for group in own.values()} == {theirs.optimizer.lr}
    assert found['decode_head.conv_seg.weight']['lr'] == pytest.approx(10 * theirs.optimizer.lr)


def test_every_registered_backbone_is_tested_here_or_before():
    tested = {options['type'] for _, _, options in FAMILIES.values()}
    before = {f'LocalResN{end}' for end in ('et', 'etV1c', 'etV1d', 'eXt')} | {'LocalSwinTransformer'}
    absent = set() if find_spec('mmpretrain') else {'LocalConvNeXt', 'LocalCIFARResNet', 'LocalResNet_CIFAR'}
    assert {cls.__name__ for cls in registered()} == (tested | before) - absent


def test_the_document_lists_every_backbone():
    """docs/backbones.md: each class with its package, its plain twin and the stride that --method manpp writes."""
    rows = re.findall(r'^\| `(Local\w+)` \| ([\w, ]+) \| .*?`(\w+)`.*\| (.+?) \|$', DOCUMENT.read_text(), re.M)
    scopes = dict(MMDetection='mmdet', MMSegmentation='mmseg', MMPretrain='mmpretrain')
    listed = {(name, scopes[each], plain) for name, packages, plain, _ in rows for each in packages.split(', ')}
    found = {(cls.__name__, cls.auxiliary_type.registry.scope, cls.plain.__name__) for cls in registered()}
    without = not find_spec('mmpretrain')
    absent = {row for row in listed if without and (row[0] == 'LocalConvNeXt' or row[1] == 'mmpretrain')}
    assert listed - absent == found
    strides = {name: stride for name, _, _, stride in rows}
    for cls in registered():
        own = 'the block' in strides[cls.__name__]
        assert own != (cls.transformer or cls.__name__ == 'LocalResNetV1c'), cls


def registered() -> list[type[LocalBackbone]]:
    """The local backbones of this package."""
    names = ['mmdet', 'mmseg', *(['mmpretrain'] if find_spec('mmpretrain') else [])]
    found = [vars(import_module(f'manpp_mm.registry.{name}')).values() for name in names]
    return [
        each
        for each in (value for values in found for value in values)
        if inspect.isclass(each) and issubclass(each, LocalBackbone) and each.__module__.startswith('manpp_mm.registry')
    ]


def test_a_class_token_stays_beside_its_patches():
    tokens = torch.rand(2, 1 + 3 * 5, 4)
    x = ClassToken.pack(tokens, (3, 5))
    assert x.shape == (2, 4, 5, 4)
    assert torch.equal(ClassToken.unpack(x), tokens)
    assert ClassToken.unpack(x).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()  # no copy
    layout = ClassToken()
    assert torch.equal(layout.to_map(x), tokens[:, 1:].unflatten(1, (3, 5)).permute(0, 3, 1, 2))
    pooled = ClassToken.unpack(layout.pooled(x, 2))
    assert torch.equal(pooled[:, 0], tokens[:, 0])
    expected = torch.nn.functional.avg_pool2d(layout.to_map(x), 2, ceil_mode=True)
    assert torch.equal(pooled[:, 1:], expected.flatten(2).transpose(1, 2))


def test_a_class_token_learns_from_mixed_labels():
    config = config_of('ViT, classifier')
    smooth = dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='classy_vision')
    config.model.backbone.auxiliary.head.loss = config.model.head.loss = smooth
    config.model.data_preprocessor.update(batch_augments=dict(augments=[dict(type='Mixup', alpha=0.8)]))
    model = build(config).double()
    torch.manual_seed(1)
    data = drawn_for(model, 'mmpretrain')
    scores = torch.stack([sample.gt_score for sample in data['data_samples']])
    assert ((scores > 0) & (scores < 1)).any()
    assert check_parity(model, data)


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('ViT', dict(output_cls_token=True), 'model.backbone.output_cls_token=True: a LocalVisionTransformer returns'),
        ('ViT', dict(out_origin=True), 'out_origin=False, or use the plain VisionTransformer'),
        ('CSPNeXt', dict(out_indices=(0, 2, 3, 4)), 'outputs of stages .*but model.backbone.out_indices is'),
        ('CSPNeXt', dict(cuts=[(1, 2)]), 'cut'),
    ],
)
def test_what_a_family_does_not_do(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(config_of(name, **options), hooked=False)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (
            'LocalSwinTransfomer',
            "is not registered in mmdet: did you mean 'LocalSwinTransformer'",
        ),
        ('LocalMixVisionTransformer', "did you mean 'LocalPyramidVisionTransformer'"),  # that is MMSegmentation's
        ('Unheard', 'is not registered in mmdet: docs/backbones.md lists the local backbones; for your own, add'),
    ],
)
def test_a_backbone_that_is_not_there(name, message):
    config = detector_config()
    config.model.backbone.type = name
    with pytest.raises(ValueError, match=message):
        check_request(config, None)


def test_what_the_twin_refuses_is_checkpointed_by_name():
    config = config_of('ViT')
    config.model = plain_model(config)
    config.model.backbone.update(output_cls_token=True)
    config.model.decode_head = dict(
        type='DPTHead', in_channels=[16] * 4, channels=16, embed_dims=16, post_process_channels=[16] * 4, num_classes=4,
        readout_type='project', input_transform='multiple_select', in_index=(0, 1, 2, 3), norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss'),
    )  # fmt: skip
    predictor = Predictor(config, 2, (128, 256))
    found = predictor.predictions(methods_for(config, None))
    assert any('backbone.layers.0' in each.way.modules for each in found)
    assert 'output_cls_token=True' in predictor.faults[0]


def test_convnext_has_a_twin_in_each_package():
    convnext = pytest.importorskip('mmpretrain.models').ConvNeXt
    scopes = ['mmdet', 'mmseg', 'mmpretrain']
    twins = [local_twin(convnext, scope) for scope in scopes]
    assert [twin.auxiliary_type.registry.scope for twin in twins] == scopes
