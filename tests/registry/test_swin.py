"""Swin Transformers of both packages: what holds for a ResNet holds for them."""

import pytest
import torch
from helpers import (
    AUXILIARY,
    SWIN,
    build,
    check_evaluation,
    check_exact,
    check_parity,
    detection_batch,
    detector_config,
    segmentation_batch,
    segmentor_config,
    with_swin,
)
from mmdet.models import SwinTransformer as DetSwin
from mmengine.registry import init_default_scope
from mmseg.models import SwinTransformer as SegSwin
from runners import coco_runner_config, runner
from torch import nn

from manpp_mm.backbones import plain_model
from manpp_mm.comparison import parse_variant, variant_config
from manpp_mm.registry import mmdet, mmseg

TASKS = {
    'detector': (detector_config, detection_batch, mmdet.LocalSwinTransformer, DetSwin),
    'segmentor': (segmentor_config, segmentation_batch, mmseg.LocalSwinTransformer, SegSwin),
}
OPTIONS = {
    'as it is': {},
    'cut at stage ends': dict(cuts=None, local_blocks=4),
    'cut after every unit': dict(cuts=[(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0)]),
    'checkpointed units': dict(with_cp=True),
    'frozen stem': dict(frozen_stages=0),
    'frozen stem and stage 0': dict(frozen_stages=1, cuts=[(1, 0), (1, 1)]),
    'position embedding': dict(use_abs_pos_embed=True, pretrain_img_size=64),
    'two outputs': dict(out_indices=(1, 3)),
    'one block': dict(cuts=[]),
}


def model_of(task, **backbone):
    make, batch, *_ = TASKS[task]
    config = with_swin(make(), **backbone)
    outputs = backbone.get('out_indices', (0, 1, 2, 3))
    channels = [16 * 2**stage for stage in outputs]
    if task == 'detector':
        config.model.neck.in_channels = channels
    else:
        config.model.decode_head.in_index = len(outputs) - 1
    model = build(config).double()
    return model, batch(model)


@pytest.mark.parametrize('name', OPTIONS)
@pytest.mark.parametrize('task', TASKS)
def test_gradients_equal_the_naive_sum(task, name):
    model, data = model_of(task, **OPTIONS[name])
    names = check_parity(model, data)
    assert bool(names) == bool(model.backbone.cuts)
    dropped = [m for m in model.backbone.auxiliary.modules() if type(m).__name__ == 'DropPath' and m.drop_prob > 0]
    assert bool(dropped) == bool(model.backbone.cuts)  # branches keep their unit's


@pytest.mark.parametrize('task', TASKS)
def test_the_task_trains_the_unit_before_each_lateral(task):
    # The unit that runs again would draw another path.
    check_parity(*model_of(task, lateral_gradient=True, drop_path_rate=0.0))


@pytest.mark.parametrize('name', OPTIONS)
@pytest.mark.parametrize('task', TASKS)
def test_exact_gradients_are_end_to_end_trainings(task, name):
    check_exact(*model_of(task, **OPTIONS[name], gradient='exact'))


@pytest.mark.parametrize('stride', [None, 16])
def test_branches_at_another_stride(stride):
    model, _ = model_of('detector', auxiliary=dict(AUXILIARY, stride=stride))
    data = detection_batch(model, size=128)
    check_parity(model, data)
    strides = [network.heads[0].strides[0] for network in model.backbone.auxiliary]
    assert strides == ([8, 8, 32] if stride is None else [16, 16, 32])


@pytest.mark.parametrize('task', TASKS)
def test_evaluation_is_the_parents_and_runs_no_auxiliary_network(task, monkeypatch):
    make, _, local, plain = TASKS[task]
    config = with_swin(make())
    init_default_scope(config.default_scope)
    options = {key: value for key, value in SWIN.items() if key not in ('type', 'cuts')}
    assert local.plain is plain
    built = local(**options, cuts=SWIN['cuts'], auxiliary=config.model.backbone.auxiliary)
    check_evaluation(built, plain(**options), monkeypatch)


@pytest.mark.parametrize('task', TASKS)
def test_a_parents_checkpoint_loads_and_the_branches_follow(task):
    config = with_swin(TASKS[task][0]())
    local = build(config, hooked=False)
    config.model = plain_model(config)
    plain = build(config, hooked=False)
    assert type(plain.backbone).__name__ == 'SwinTransformer'
    assert local.load_state_dict(plain.state_dict()) == ([], [])
    assert local.backbone.sync_auxiliary()
    first = local.backbone.auxiliary[0].branches
    merging, block = local.backbone.stages[0].downsample, local.backbone.stages[1].blocks[0]
    for branch in (first.learnable, first.momentum):
        for copied, source in ((branch.merging, merging), (branch.block, block)):
            for name, value in source.state_dict().items():
                assert torch.equal(copied.state_dict()[name], value)


def test_heads_of_a_transformer_initialise_themselves():
    model = build(with_swin(detector_config()), hooked=False)
    bias = model.backbone.auxiliary[0].heads[0].conv_cls.bias
    torch.testing.assert_close(bias, torch.full_like(bias, -4.59512))  # the focal loss's prior of 0.01


def original(plain: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict as the authors of Swin name and order it, of which ``convert_weights`` makes the package's."""
    found = {}
    for name, value in plain.state_dict().items():
        if name.startswith('norm'):
            continue
        name = name.replace('stages', 'layers').replace('attn.w_msa.', 'attn.')
        name = name.replace('ffn.layers.0.0.', 'mlp.fc1.').replace('ffn.layers.1.', 'mlp.fc2.')
        name = name.replace('patch_embed.projection', 'patch_embed.proj')
        if 'downsample.reduction' in name or 'downsample.norm' in name:
            value = _merged_by_rows(value)
        found[name] = value
    return found


def _merged_by_rows(value: torch.Tensor) -> torch.Tensor:
    """Undo the converter's order of the four merged pixels."""
    if value.dim() == 2:
        out, channels = value.shape
        value = value.reshape(out, channels // 4, 4).transpose(1, 2)
        return value[:, [0, 2, 1, 3]].reshape(out, channels)
    return value.reshape(len(value) // 4, 4).transpose(0, 1)[[0, 2, 1, 3]].reshape(-1)


@pytest.mark.parametrize('convert', [True, False])
def test_pretrained_weights(tmp_path, convert):
    init_default_scope('mmdet')
    options = {key: value for key, value in SWIN.items() if key not in ('type', 'cuts', 'init_cfg')}
    plain = DetSwin(**options)
    plain.init_weights()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.copy_(torch.rand_like(parameter))
    path = tmp_path / 'swin.pth'
    state = original(plain) if convert else {f'backbone.{k}': v for k, v in plain.state_dict().items()}
    torch.save(dict(model=state), path)
    config = with_swin(
        detector_config(), convert_weights=convert, init_cfg=dict(type='Pretrained', checkpoint=str(path))
    )
    backbone = build(config).backbone
    for name, value in plain.state_dict().items():
        if not (convert and name.startswith('norm')):
            assert torch.equal(backbone.state_dict()[name], value), name
    unit, branch = backbone.stages[1].blocks[0], backbone.auxiliary[0].branches.momentum.block
    assert torch.equal(unit.ffn.layers[1].weight, branch.ffn.layers[1].weight)


def test_what_no_block_would_train_is_refused():
    class Forgetful(mmdet.LocalSwinTransformer):
        def output_modules(self, stage):
            return []

    with pytest.raises(ValueError, match=r'Forgetful: norm0.weight belongs to no unit, stem or output'):
        Forgetful(**{key: value for key, value in SWIN.items() if key != 'type'}, auxiliary=AUXILIARY)

    class Twice(mmdet.LocalSwinTransformer):
        def stem_parts(self):
            return [*super().stem_parts(), self.stages[0].blocks[1]]

    with pytest.raises(ValueError, match=r'belongs to the stem and to unit \(0, 1\)'):
        Twice(**{key: value for key, value in SWIN.items() if key != 'type'}, auxiliary=AUXILIARY)


def test_a_decode_head_needs_a_norm():
    auxiliary = dict(head=dict(type='FCNHead', num_classes=4, channels=8, num_convs=1))
    with pytest.raises(ValueError, match=r"auxiliary.head needs norm_cfg, .*dict\(type='SyncBN'\)"):
        build(with_swin(segmentor_config(), auxiliary=auxiliary))
    auxiliary['head']['norm_cfg'] = None
    build(with_swin(segmentor_config(), auxiliary=auxiliary))


def test_frozen_variants(tmp_path):
    three = dict(depths=[2, 2, 2], num_heads=[1, 2, 2], strides=(4, 2, 2), out_indices=(0, 1, 2), cuts=[(0, 1), (1, 0)])
    for kind, stages in (('frozen', 3), ('front_frozen', 1)):
        config = variant_config(with_swin(detector_config(), **three), parse_variant(kind), 0.25)
        config.model.neck.in_channels = [16, 32, 64]
        backbone = build(config, hooked=False).backbone
        assert backbone.frozen_stages == stages
        assert any(p.requires_grad for p in backbone.parameters()) == (kind != 'frozen')


def test_an_output_that_no_head_uses(tmp_path):
    config = with_swin(coco_runner_config(tmp_path))
    config.model.neck.start_level = 1
    with pytest.raises(
        RuntimeError, match=r"norm0.weight.*do not use their stage's map \(model.backbone.out_indices\)"
    ):
        runner(config).train()
