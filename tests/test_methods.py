"""Any config made to train by a method: what is written into it, and that it trains as one written by hand."""

import copy

import pytest
from helpers import build, detector_config, upstream
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from runners import coco_runner_config, renamed, runner, segmentation_runner_config

from manpp_mm.backbones import LocalBackbone
from manpp_mm.compat.config_prefix import read_config
from manpp_mm.methods import METHODS, MODE_OF, Way, apply_way, classes_of, method_of
from manpp_mm.mode import END_TO_END, EXACT, LOCAL, Mode
from manpp_mm.registered import named_class


def way(method: str, cuts: 'list | None' = None, **keys: object) -> Way:
    return Way(method, MODE_OF[method], None if cuts is None else tuple(cuts), **keys)


@pytest.mark.parametrize(
    ('own', 'theirs', 'cuts', 'keys'),
    [
        (
            'faster_rcnn_r50_manpp_coco.py',
            'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
            [(1, 2), (2, 4)],
            dict(early=('rpn_head',)),
        ),
        (
            'retinanet_r50_manpp_lean_coco.py',
            'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
            [(1, 0), (2, 4)],
            dict(stride=16),
        ),
        ('fcos_r50_manpp_coco.py', 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', [(1, 2), (2, 4)], {}),
        (
            'mask_rcnn_swin-t_manpp_coco.py',
            'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
            [(0, 0), (1, 0), (2, 3)],
            dict(early=('rpn_head',)),
        ),
        (
            'deeplabv3_r50_manpp_cityscapes.py',
            'mmseg::deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py',
            [(1, 2), (2, 4)],
            {},
        ),
        (
            'upernet_swin-t_manpp_ade20k.py',
            'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
            [(3, 0)],
            {},
        ),
        ('resnet50_manpp_imagenet.py', 'mmpretrain::resnet/resnet50_8xb32_in1k.py', [(0, 0), (0, 2), (1, 2)], {}),
    ],
)
def test_upstreams_config_becomes_the_shipped_one(own, theirs, cuts, keys):
    pytest.importorskip(theirs.partition('::')[0])
    shipped, upstreams = read_config(f'manpp_mm::{own}'), read_config(theirs)
    before = upstreams.pretty_text
    made = apply_way(upstreams, way('manpp', cuts, **keys))
    assert upstreams.pretty_text == before
    if 'lean' in own:  # all of its backbone trains
        made.model.backbone.frozen_stages = -1
    (shipped.model.get('data_preprocessor') or {}).pop('_scope_', None)
    assert plain(made.model) == plain(shipped.model)
    assert plain(made.custom_hooks) == plain(shipped.custom_hooks)
    assert plain(made.optim_wrapper) == plain(shipped.optim_wrapper)
    assert plain(made.default_hooks) == plain(shipped.default_hooks)
    assert made.custom_imports == shipped.custom_imports


def plain(value: object) -> object:
    """A config's value without scopes and with tuples for lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != '_scope_'}
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize('method', METHODS)
def test_what_a_config_says_of_its_method(method):
    config = upstream('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    cuts = dict(end_to_end=None, checkpointed=[]).get(method, [(1, 2)])
    made = apply_way(config, way(method, cuts))
    assert method_of(made) == method
    if cuts is not None:
        assert ('auxiliary' in made.model.backbone) == MODE_OF[method].local
        kinds = [hook['type'] for hook in made.custom_hooks]
        assert ('MomentumHook' in kinds) == MODE_OF[method].local
        assert kinds[0] == 'LocalLearningHook'
    else:
        assert made.pretty_text == config.pretty_text
    assert Way.from_dict(ConfigDict(way(method, cuts).as_dict())) == way(method, cuts)


def test_upstreams_own_keys_stay():
    config = upstream('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
    config.model.backbone = upstream('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py').model.backbone
    theirs = copy.deepcopy(config.custom_hooks)
    made = apply_way(config, way('manpp', [(1, 2)]))
    assert made.custom_hooks[: len(theirs)] == theirs
    # Rules by kind of layer hold for auxiliary networks as well; a key of their own would end that.
    assert made.optim_wrapper.paramwise_cfg == config.optim_wrapper.paramwise_cfg
    config.optim_wrapper.paramwise_cfg.custom_keys = dict(backbone=dict(lr_mult=0.1))
    made = apply_way(config, way('manpp', [(1, 2)]))
    assert made.optim_wrapper.paramwise_cfg.norm_decay_mult == 0
    assert made.optim_wrapper.paramwise_cfg.custom_keys == {
        'backbone': dict(lr_mult=0.1),
        'backbone.auxiliary': dict(lr_mult=1.0),
    }


def test_norms_decay_in_branches_as_in_the_trunk():
    config = upstream('mmdet::pvt/retinanet_pvt-t_fpn_1x_coco.py')
    assert 'paramwise_cfg' not in config.optim_wrapper
    made = apply_way(config, way('manpp', [(1, 0)]))
    assert made.optim_wrapper.paramwise_cfg.custom_keys == {'backbone.auxiliary': dict(lr_mult=1.0)}
    config.optim_wrapper.paramwise_cfg = dict(custom_keys={'norm': dict(decay_mult=0.0)})
    keys = apply_way(config, way('manpp', [(1, 0)])).optim_wrapper.paramwise_cfg.custom_keys
    assert keys['branches.learnable.layer.norm'] == dict(decay_mult=0.0)


def test_local_heads_of_a_transformer_whose_own_head_names_no_norm():
    config = upstream('mmseg::segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512.py')
    assert 'norm_cfg' not in config.model.decode_head
    made = apply_way(config, way('manpp', [(0, 5)]))
    assert made.model.backbone.auxiliary.head.norm_cfg == dict(type='SyncBN', requires_grad=True)


def test_a_local_backbone_without_auxiliary_networks():
    config = upstream('mmdet::hrnet/fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco.py')

    class NoNetworks(LocalBackbone):
        pass

    config.model.backbone.type = NoNetworks
    with pytest.raises(ValueError, match='model.backbone: NoNetworks must set auxiliary_type'):
        apply_way(config, way('exact', [(0, 0)]))


def test_a_classifiers_rules_by_kind_of_layer_stay():
    pytest.importorskip('mmpretrain')
    config = read_config('mmpretrain::deit/deit-tiny_4xb256_in1k.py')
    made = apply_way(config, way('manpp', [(0, 5)]))
    assert made.optim_wrapper == config.optim_wrapper  # norms and biases do not decay, in auxiliary networks either
    assert made.model.backbone.auxiliary.head.num_classes == 1000


@pytest.mark.parametrize(('patch', 'stride'), [(16, 16), (32, 32), (14, 28), (4, 16)])
def test_the_stride_that_is_written_fits_a_vits_patches(patch, stride):
    pytest.importorskip('mmpretrain')
    config = read_config('mmpretrain::deit/deit-tiny_4xb256_in1k.py')
    config.model.backbone.patch_size = patch
    made = apply_way(config, way('manpp', [(0, 5)]))
    assert made.model.backbone.auxiliary.stride == stride
    build(made, hooked=False)


def test_several_labels_an_image_are_refused():
    pytest.importorskip('mmpretrain')
    config = read_config('mmpretrain::csra/resnet101-csra_1xb16_voc07-448px.py')
    with pytest.raises(ValueError, match=r"model.head.type='CSRAClsHead' predicts several labels per image"):
        apply_way(config, way('manpp', [(1, 2)]))
    assert apply_way(config, way('exact', [(1, 2)])).model.backbone.type == 'LocalResNet'


def test_small_images_are_not_pooled():
    pytest.importorskip('mmpretrain')
    config = read_config('mmpretrain::resnet/resnet18_8xb16_cifar10.py')
    made = apply_way(config, way('manpp', [(1, 0)]))
    assert made.model.backbone.type == 'LocalResNet_CIFAR'
    assert made.model.backbone.auxiliary.stride is None
    assert made.model.backbone.auxiliary.head.num_classes == 10


def test_a_segmentors_auxiliary_head_stays_for_exact_gradients():
    config = upstream('mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py')
    assert apply_way(config, way('exact', [(1, 2)])).model.auxiliary_head is not None
    assert apply_way(config, way('manpp', [(1, 2)])).model.auxiliary_head is None


@pytest.mark.parametrize('imports', ['things', ['things']])
def test_own_imports_stay(imports):
    config = upstream('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    config.custom_imports = dict(imports=imports, allow_failed_imports=True)
    made = apply_way(config, way('exact', [(1, 2)]))
    assert made.custom_imports == dict(imports=['things', 'manpp_mm'], allow_failed_imports=True)


def test_another_packages_backbone_has_no_twin():
    config = upstream('mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py')
    config.model.backbone.type = 'mmdet.ResNet'
    with pytest.raises(
        ValueError, match="there is no local backbone for .*'mmdet.ResNet'; the closest match is ResNet "
    ):
        apply_way(config, way('exact', [(1, 2)]))


def test_a_backbone_without_a_local_one():
    config = upstream('mmdet::hrnet/fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco.py')
    message = r"method 'manpp': there is no local backbone for .*'HRNet'; the closest match is \w+"
    with pytest.raises(ValueError, match=message):
        apply_way(config, way('manpp', [(1, 2)]))


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', 80),
        ('mmdet::detr/detr_r50_8xb2-150e_coco.py', 80),
        ('mmdet::solo/solo_r50_fpn_1x_coco.py', 80),
        ('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py', 80),  # of its 133 these are things
        ('mmseg::ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py', 19),
    ],
)
def test_classes_of_the_models_own_heads(name, expected):
    assert classes_of(upstream(name).model) == expected


def test_a_model_that_names_no_classes():
    with pytest.raises(ValueError, match='no head of the model sets num_classes'):
        classes_of(dict(rpn_head=dict(type='RPNHead')))


def test_early_loss_is_named_once():
    config = detector_config()
    config.custom_hooks = [dict(type='EarlyLossHook', heads=['rpn_head'])]
    made = apply_way(config, Way('manpp', LOCAL, ((1, 1),), early=('rpn_head',), modules=('neck',)))
    assert made.custom_hooks == [*config.custom_hooks, dict(type='CheckpointModulesHook', modules=['neck'])]
    again = apply_way(made, Way('manpp', LOCAL, ((1, 1),), early=('rpn_head',), modules=('neck',)))
    assert again.custom_hooks == made.custom_hooks


def test_names():
    spared = Mode.with_heads_spared(EXACT.with_units_checkpointed())
    assert str(Way('exact', spared)) == 'exact_checkpointed_heads_checkpointed'
    assert str(Way('dgl', LOCAL.with_early_loss())) == 'dgl_early_loss'
    assert Mode.parse('end_to_end_early_loss') == END_TO_END.with_early_loss()


class Losses(Hook):
    """Keeps each iteration's losses as the log has them."""

    def __init__(self) -> None:
        self.found: list[dict[str, float]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.found.append({name: value.item() for name, value in outputs.items()})


def trained(config: Config) -> list[dict[str, float]]:
    run = runner(renamed(config))
    losses = Losses()
    run.register_hook(losses)
    run.train()
    return losses.found


@pytest.mark.parametrize('method', ['exact', 'manpp'])
@pytest.mark.parametrize('make', [coco_runner_config, segmentation_runner_config])
def test_the_same_losses_as_by_hand(tmp_path, make, method):
    cuts = [(1, 1), (2, 0)]
    hand = make(
        tmp_path, type='LocalResNet' if make is coco_runner_config else 'LocalResNetV1c', cuts=cuts, auxiliary=None
    )
    backbone = hand.model.backbone
    theirs = copy.deepcopy(hand)
    theirs.custom_hooks = None
    theirs.model.backbone = {key: value for key, value in backbone.items() if key not in ('cuts', 'auxiliary')}
    theirs.model.backbone['type'] = backbone.type.removeprefix('Local')
    assert named_class(theirs.model.backbone.type, 'model', theirs.default_scope) is not None
    task = 'detection' if make is coco_runner_config else 'segmentation'
    fragment = read_config(f'manpp_mm::_base_/{task}.py')
    hand.custom_hooks = fragment.manpp_hooks
    if method == 'exact':
        backbone.gradient = 'exact'
        backbone.pop('auxiliary')
    else:
        backbone.auxiliary = fragment.manpp_backbone.auxiliary
        backbone.auxiliary.head.num_classes = 3 if make is coco_runner_config else 4
        hand.optim_wrapper.paramwise_cfg = fragment.manpp_paramwise
        if make is coco_runner_config:
            hand.optim_wrapper.clip_grad = fragment.manpp_clip_grad
    made = apply_way(theirs, way(method, cuts))
    found, expected = trained(made), trained(hand)
    assert len(found) == 4
    assert found == expected
    assert any(name.startswith('block0.') for name in found[0]) == (method == 'manpp')
