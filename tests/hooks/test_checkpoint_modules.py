"""CheckpointModulesHook and EarlyLossHook: the same step, every parameter and buffer, with less memory."""

import copy
from functools import partial

import pytest
import torch
from helpers import (
    assert_same_gradients,
    build,
    detection_batch,
    detector_config,
    detr_config,
    gradients,
    mask2former_config,
    segmentation_batch,
    segmentor_config,
    upstream,
)
from hooked import replaced, two_stage
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import MODELS as MODELS_REGISTRY
from runners import HOOKS, coco_runner_config, runner, segmentation_runner_config

from manpp_mm.backbones import plain_model
from manpp_mm.hooks import CheckpointModulesHook
from manpp_mm.hooks.checkpoint_modules_hook import CheckpointedCall
from manpp_mm.hooks.replaced_method import find_modules, means
from manpp_mm.hooks.sparing import spared_modules
from manpp_mm.memory import LiveBytes

NORM = dict(type='BN')


def one_stage(name: str):
    """A one-stage detector of upstream on the small backbone, with live BatchNorm in the neck."""
    config = detector_config()
    config.model = dict(upstream(f'mmdet::{name}').model, backbone=config.model.backbone)
    config.model.neck.update(in_channels=[16, 32, 64, 128], out_channels=32, norm_cfg=NORM)
    config.model.bbox_head.update(num_classes=3, in_channels=32, feat_channels=32, stacked_convs=1)
    return config


MODELS = {
    'Faster R-CNN': (two_stage, ['neck', 'rpn_head', 'roi_head.bbox_head']),
    'RetinaNet': (lambda: one_stage('retinanet/retinanet_r50_fpn_1x_coco.py'), ['neck', 'bbox_head']),
    'FCOS': (lambda: one_stage('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'), ['neck', 'bbox_head']),
    'DeepLabV3': (segmentor_config, ['decode_head']),
    'Deformable DETR': (partial(detr_config, 'deformable_detr'), ['encoder.layers.*']),
    'DINO': (partial(detr_config, 'dino'), ['encoder.layers.*']),
    'Mask2Former': (mask2former_config, ['decode_head.pixel_decoder.encoder.layers.*']),
}


def step(model, data) -> int:
    """One forward and backward; returns the bytes that forward keeps for backward."""
    torch.manual_seed(1)
    with LiveBytes(exclude=[*model.parameters(), *model.buffers(), data['inputs']]) as live:
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        kept = live.current
        loss.backward()
    return kept


@pytest.mark.parametrize('kind', ['end-to-end', 'exact', 'local'])
@pytest.mark.parametrize('name', MODELS)
def test_same_gradients_and_statistics_with_less_memory(name, kind):
    make, names = MODELS[name]
    config = make()
    if kind == 'end-to-end':
        config.model = plain_model(config)
    elif kind == 'exact':
        config.model.backbone.gradient = 'exact'
    model = build(config, hooked=kind == 'local')
    if name not in ('DINO', 'Mask2Former'):  # which do not run in float64
        model.double()
    data = (segmentation_batch if config.default_scope == 'mmseg' else detection_batch)(model)
    start = copy.deepcopy(model.state_dict())
    plain = step(model, data)
    expected, moved = gradients(model), copy.deepcopy(dict(model.named_buffers()))
    model.load_state_dict(start)
    model.zero_grad()
    hook = CheckpointModulesHook(names)
    hook.apply(model)
    found = step(model, data)
    hook.check_ran()
    assert_same_gradients(gradients(model), expected, 1e-10)
    for key, value in model.named_buffers():
        assert torch.equal(value, moved[key]), key
    assert plain - found > 100_000  # bytes; at this size gradients of parameters are most of what is kept
    assert replaced(model) == set(find_modules(model, names, ''))
    hook.remove(model)
    assert not replaced(model)


def test_a_training_with_accumulation_ends_in_the_same_parameters(tmp_path):
    states = []
    for name in ('kept', 'recomputed'):
        config = segmentation_runner_config(tmp_path / name)
        config.optim_wrapper.accumulative_counts = 2
        if name == 'recomputed':
            config.custom_hooks = [*HOOKS, dict(type='CheckpointModulesHook', modules=['decode_head'])]
        run = runner(config)
        run.train()
        states.append(run.model.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-6, atol=1e-7, msg=key)


@pytest.mark.parametrize(
    ('modules', 'message'),
    [
        (['nek'], r"FasterRCNN has no module 'nek'; it has backbone, neck, .*rpn_head.*roi_head.bbox_head"),
        (['backbone'], r"model.backbone.with_cp=True \(units\) or gradient='exact'"),
        (['roi_head'], r'name a module inside: roi_head.bbox_roi_extractor, roi_head.bbox_head'),
        (['backbone.layer1'], r'did not run in training'),
    ],
)
def test_modules_that_cannot_be_checkpointed(tmp_path, modules, message):
    config = coco_runner_config(tmp_path)
    config.custom_hooks = [*HOOKS, dict(type='CheckpointModulesHook', modules=modules)]
    with pytest.raises(ValueError, match=message):
        runner(config).train()


@pytest.mark.parametrize('modules', ['neck', [], [3]])
def test_modules_must_be_a_list_of_names(modules):
    with pytest.raises(ValueError, match='must be a list of names'):
        CheckpointModulesHook(modules)


def test_of_mask2former_the_layers_are_spared_one_by_one():
    layers = [
        f'decode_head.{part}.layers.{i}' for part in ('pixel_decoder.encoder', 'transformer_decoder') for i in (0, 1)
    ]
    assert spared_modules(build(mask2former_config(), hooked=False)) == layers
    assert spared_modules(build(segmentor_config(), hooked=False)) == ['decode_head']


@pytest.mark.parametrize(
    ('pattern', 'name', 'expected'),
    [
        ('encoder.layers.*', 'encoder.layers.0', True),
        ('encoder.layers.*', 'encoder.layers.0.ffn', False),
        ('encoder.layers.*', 'encoderxlayers.0', False),
        ('*.layers.1', 'decoder.layers.1', True),
        ('neck', 'neck', True),
        ('nec', 'neck', False),
    ],
)
def test_patterns(pattern, name, expected):
    assert means(pattern, name) is expected


class Watcher(Hook):
    """What is replaced in training, whether it was run in validation, and an end with the second iteration."""

    priority = 'LOWEST'

    def __init__(self, interrupt: bool = False) -> None:
        self.interrupt, self.seen, self.calls = interrupt, [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append(replaced(runner.model))
        if self.interrupt and runner.iter == 1:
            raise KeyboardInterrupt

    def before_val(self, runner):
        call = runner.model.neck.forward
        call.ran = False
        self.calls.append(call)


BOTH = [
    *HOOKS,
    dict(type='CheckpointModulesHook', modules=['neck']),
    dict(type='CheckpointModulesHook', modules=['neck', 'rpn_head']),
    dict(type='EarlyLossHook', heads=['rpn_head']),
]


def test_a_second_training_and_evaluation_see_the_modules_as_they_were(tmp_path):
    config = coco_runner_config(tmp_path, validate=True)
    config.custom_hooks = BOTH
    run = runner(config)
    watcher = Watcher()
    run.register_hook(watcher)
    run.train()
    assert watcher.seen == [{'neck', 'rpn_head'}] * 4
    assert len(watcher.calls) == 2
    assert not any(call.ran for call in watcher.calls)
    assert not replaced(run.model)
    run.train_loop._epoch = run.train_loop._iter = 0
    run.train()
    assert watcher.seen == [{'neck', 'rpn_head'}] * 8
    assert not replaced(run.model)


def test_a_training_after_an_interrupted_one_replaces_once(tmp_path):
    config = coco_runner_config(tmp_path)
    config.custom_hooks = BOTH
    run = runner(config)
    run.register_hook(Watcher(interrupt=True))
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert replaced(run.model) == {'neck', 'rpn_head'}
    config = coco_runner_config(tmp_path)
    config.custom_hooks = [*HOOKS, dict(type='CheckpointModulesHook', modules=['neck']), *BOTH[-1:]]
    config.custom_hooks += [dict(type='EMAHook', momentum=0.5)]
    again = runner(config)
    again.model = run.model
    watcher = Watcher()
    again.register_hook(watcher)
    again.train()
    assert watcher.seen == [{'neck', 'rpn_head'}] * 4
    assert not replaced(again.model)
    ema = next(hook for hook in again.hooks if isinstance(hook, EMAHook))
    assert not replaced(ema.ema_model.module)


def test_a_copy_of_a_checkpointed_model_is_one_of_its_own():
    model = build(two_stage(), hooked=False)
    CheckpointModulesHook(['neck']).apply(model)
    twin = copy.deepcopy(model)
    assert twin.neck.forward.module is twin.neck
    assert twin.neck.forward.original.__self__ is twin.neck


@pytest.mark.parametrize(
    ('kind', 'method'),
    [
        ('RetinaHead', 'forward_single'),
        ('FCOSHead', 'forward_single'),
        ('RTMDetHead', 'forward'),  # inherits ATSSHead's forward_single and does not call it
        ('TOODHead', 'forward'),
    ],
)
def test_a_heads_method_that_runs_is_the_one_that_is_checkpointed(kind, method):
    head = MODELS_REGISTRY.get(f'mmdet.{kind}')(num_classes=3, in_channels=32, feat_channels=32, **HEAD_KEYS[kind])
    holder = torch.nn.ModuleDict(dict(bbox_head=head)).train()
    hook = CheckpointModulesHook(['bbox_head'])
    hook.apply(holder)
    levels = [torch.rand(2, 32, side, side) for side in (16, 8, 4, 2, 1)]
    with LiveBytes(exclude=[*head.parameters(), *head.buffers(), *levels]) as live:
        outputs = head(levels)
        kept = live.current
    assert [name for name, value in vars(head).items() if isinstance(value, CheckpointedCall)] == [method]
    hook.check_ran()
    outputs = [level for output in outputs for level in output]
    # One hidden map of all levels takes 87 296 bytes; each head here has at least two hidden ones.
    assert kept - sum(output.untyped_storage().nbytes() for output in outputs) < 20_000


ATSS_KEYS = dict(
    anchor_generator=dict(
        type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8, 16, 32, 64, 128]
    ),
    loss_cls=dict(type='FocalLoss', use_sigmoid=True),
)
HEAD_KEYS = dict(
    RetinaHead={},
    FCOSHead=dict(strides=[8, 16, 32, 64, 128]),
    TOODHead=ATSS_KEYS,
    RTMDetHead=dict(
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32, 64, 128]),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True),
        with_objectness=False,
    ),
)
