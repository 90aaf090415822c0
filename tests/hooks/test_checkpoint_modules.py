"""CheckpointModulesHook and EarlyLossHook: the same step, every parameter and buffer, with less memory."""

import copy

import pytest
import torch
from helpers import (
    assert_same_gradients,
    build,
    detection_batch,
    detector_config,
    gradients,
    segmentation_batch,
    segmentor_config,
)
from mmengine.hub import get_config
from runners import HOOKS, coco_runner_config, runner, segmentation_runner_config

from manpp_mm.hooks import CheckpointModulesHook, EarlyLossHook
from manpp_mm.hooks.checkpoint_modules_hook import checkpoint_modules
from manpp_mm.hooks.early_loss_hook import take_losses_early
from manpp_mm.models.plain import plain_model
from manpp_mm.profiling import LiveBytes

NORM = dict(type='BN')


def one_stage(upstream: str):
    """A one-stage detector of upstream on the small backbone, with live BatchNorm in the neck."""
    config = detector_config()
    config.model = dict(get_config(f'mmdet::{upstream}').model, backbone=config.model.backbone)
    config.model.neck.update(in_channels=[16, 32, 64, 128], out_channels=32, norm_cfg=NORM)
    config.model.bbox_head.update(num_classes=3, in_channels=32, feat_channels=32, stacked_convs=1)
    return config


def two_stage():
    config = detector_config()
    config.model.neck.norm_cfg = NORM
    return config


MODELS = {
    'Faster R-CNN': (two_stage, ['neck', 'rpn_head', 'roi_head.bbox_head']),
    'RetinaNet': (lambda: one_stage('retinanet/retinanet_r50_fpn_1x_coco.py'), ['neck', 'bbox_head']),
    'FCOS': (lambda: one_stage('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'), ['neck', 'bbox_head']),
    'DeepLabV3': (segmentor_config, ['decode_head']),
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
        config.model = plain_model(config.model)
    elif kind == 'exact':
        config.model.backbone.gradient = 'exact'
    model = build(config, hooked=kind == 'local').double()
    data = segmentation_batch(model) if name == 'DeepLabV3' else detection_batch(model)
    start = copy.deepcopy(model.state_dict())
    plain = step(model, data)
    expected, moved = gradients(model), copy.deepcopy(dict(model.named_buffers()))
    model.load_state_dict(start)
    model.zero_grad()
    calls, undo = checkpoint_modules(model, names)
    found = step(model, data)
    assert all(call.ran for call in calls.values())
    assert_same_gradients(gradients(model), expected, 1e-10)
    for key, value in model.named_buffers():
        assert torch.equal(value, moved[key]), key
    assert plain - found > 100_000  # bytes; at this size gradients of parameters are most of what is kept
    for function in undo:
        function()
    assert not any({'forward', 'forward_single'} & set(vars(module)) for module in model.modules())


@pytest.mark.parametrize('checkpointed', [False, True])
@pytest.mark.parametrize('kind', ['end-to-end', 'exact', 'local'])
def test_the_rpns_loss_taken_early(kind, checkpointed):
    config = two_stage()
    config.model.rpn_head.feat_channels = 256
    if kind == 'end-to-end':
        config.model = plain_model(config.model)
    elif kind == 'exact':
        config.model.backbone.gradient = 'exact'
    model = build(config, hooked=kind == 'local').double()
    data = detection_batch(model)
    alive = []
    model.roi_head.bbox_head.register_forward_pre_hook(lambda *_: alive.append(live.current))

    def run() -> dict:
        torch.manual_seed(1)
        model.zero_grad()
        loss, log = model.parse_losses(model(**data, mode='loss'))
        loss.backward()
        return log

    with LiveBytes() as live:
        plain = run()
    expected = gradients(model)
    undo = take_losses_early(model, ['rpn_head'])
    if checkpointed:
        undo += checkpoint_modules(model, ['neck', 'rpn_head'])[1]
    with LiveBytes() as live:
        early = run()
    assert_same_gradients(gradients(model), expected, 1e-10)
    assert {name: value.item() for name, value in early.items()} == pytest.approx(
        {name: value.item() for name, value in plain.items()}, rel=1e-12
    )
    hidden = 2 * 256 * 8 * sum(side**2 for side in (16, 8, 4, 2, 1))  # float64, the RPN's one hidden layer
    assert alive[0] - alive[1] > 0.5 * hidden
    for function in undo:
        function()
    assert not {'loss', 'loss_and_predict', 'forward_single'} & set(vars(model.rpn_head))


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
        (['nek'], r"FasterRCNN has no module 'nek'; there are backbone, neck, .*rpn_head.*roi_head.bbox_head"),
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


def test_a_second_training_and_evaluation_see_the_module_as_it_was(tmp_path):
    config = coco_runner_config(tmp_path, validate=True)
    config.custom_hooks = [*HOOKS, dict(type='CheckpointModulesHook', modules=['neck'])]
    run = runner(config)
    run.train()
    assert 'forward' not in vars(run.model.neck)
    run.train_loop._epoch = run.train_loop._iter = 0
    run.train()
    assert 'forward' not in vars(run.model.neck)


def test_early_losses_in_a_training(tmp_path):
    config = coco_runner_config(tmp_path)
    config.custom_hooks = [*HOOKS, dict(type='EarlyLossHook', heads=['rpn_head'])]
    run = runner(config)
    run.train()
    assert run.iter == 4
    assert not {'loss', 'loss_and_predict'} & set(vars(run.model.rpn_head))


@pytest.mark.parametrize(
    ('heads', 'message'),
    [(['rpn'], "FasterRCNN has no module 'rpn'; there are"), (['neck'], r"'neck' \(FPN\) has no loss\(\) of its own")],
)
def test_heads_that_have_no_early_loss(tmp_path, heads, message):
    config = coco_runner_config(tmp_path)
    config.custom_hooks = [*HOOKS, dict(type='EarlyLossHook', heads=heads)]
    with pytest.raises(ValueError, match=message):
        runner(config).train()
    with pytest.raises(ValueError, match='must be a list of names'):
        EarlyLossHook('rpn_head')
