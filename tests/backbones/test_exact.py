"""Exact gradients: the plain backbone's training, parameters and BatchNorm statistics, at local memory."""

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
    with_swin,
)
from torch.optim import SGD

from manpp_mm.backbones import plain_model


def swin_detector(**backbone):
    return with_swin(detector_config(), **backbone)


def swin_segmentor(**backbone):
    return with_swin(segmentor_config(), **backbone)


CASES = {
    'detector': (detector_config, dict()),
    'detector, frozen stem and layer1': (detector_config, dict(frozen_stages=1)),
    'detector, frozen stem': (detector_config, dict(frozen_stages=0)),
    'detector, checkpointed units': (detector_config, dict(with_cp=True)),
    'detector, one block': (detector_config, dict(cuts=None, local_blocks=1)),
    'detector, Swin': (swin_detector, dict()),
    'detector, Swin, frozen stem and stage 0': (swin_detector, dict(frozen_stages=1, cuts=[(1, 0), (1, 1)])),
    'segmentor, Swin, checkpointed units': (swin_segmentor, dict(with_cp=True)),
    'segmentor': (segmentor_config, dict()),
    'segmentor, checkpointed units': (segmentor_config, dict(with_cp=True)),
    'segmentor, checkpointed units alone': (segmentor_config, dict(cuts=None, local_blocks=1, with_cp=True)),
}


def batch(model):
    return segmentation_batch(model) if hasattr(model, 'decode_head') else detection_batch(model)


def plain_of(config, **backbone):
    config.model = plain_model(config)
    config.model.backbone.update(backbone)
    return config


@pytest.mark.parametrize('name', CASES)
def test_two_steps_equal_the_plain_models(name):
    make, options = CASES[name]
    exact = build(make(gradient='exact', **options), hooked=False).double()
    plain = build(plain_of(make(**options), with_cp=False), hooked=False).double()
    assert exact.state_dict().keys() == plain.state_dict().keys()  # no auxiliary network
    plain.load_state_dict(exact.state_dict())
    start = {key: value.clone() for key, value in plain.state_dict().items()}
    data = batch(plain)
    optimizers = [SGD([p for p in m.parameters() if p.requires_grad], lr=1e-3) for m in (exact, plain)]
    for step in range(2):
        for model, optimizer in zip((exact, plain), optimizers, strict=True):
            optimizer.zero_grad()
            torch.manual_seed(step)
            loss, _ = model.parse_losses(model(**data, mode='loss'))
            loss.backward()
            optimizer.step()
        assert_same_gradients(gradients(exact), gradients(plain), 1e-10)
        for (name, found), expected in zip(exact.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14, msg=name)
        for (name, found), expected in zip(exact.named_buffers(), plain.buffers(), strict=True):
            assert torch.equal(found, expected), name
    moved = [key for key, value in plain.state_dict().items() if not torch.equal(value, start[key])]
    live = not getattr(plain.backbone, 'norm_eval', True)  # a Swin Transformer has no BatchNorm
    assert any('running_mean' in key for key in moved if key.startswith('backbone')) == live


def test_mixed_precision():
    exact = build(segmentor_config(gradient='exact'), hooked=False)
    plain = build(plain_of(segmentor_config()), hooked=False)
    plain.load_state_dict(exact.state_dict())
    data = segmentation_batch(plain)
    for model in (exact, plain):
        torch.manual_seed(0)
        with torch.autocast('cpu', torch.bfloat16):
            loss, _ = model.parse_losses(model(**data, mode='loss'))
        loss.backward()
    assert_same_gradients(gradients(exact), gradients(plain), 1e-6)
    assert all(torch.equal(a, b) for a, b in zip(exact.buffers(), plain.buffers(), strict=True))


def test_what_is_frozen_is_not_run_again():
    model = build(detector_config(gradient='exact', frozen_stages=1), hooked=False)
    calls = dict.fromkeys(('layer1', 'layer2', 'layer3', 'layer4'), 0)
    for name in calls:

        def count(*_, name=name):
            calls[name] += 1

        getattr(model.backbone, name)[-1].register_forward_pre_hook(count)
    data = detection_batch(model)
    model.parse_losses(model(**data, mode='loss'))[0].backward()
    assert calls == dict(layer1=1, layer2=2, layer3=2, layer4=1)  # the last block is kept


def test_evaluation_is_the_parents(monkeypatch):
    model = build(detector_config(gradient='exact'), hooked=False)
    monkeypatch.setattr(type(model.backbone), 'run_block', lambda *_, **__: pytest.fail('ran block by block'))
    with torch.no_grad():
        model.backbone(torch.rand(1, 3, 64, 64))
    model.eval().backbone(torch.rand(1, 3, 64, 64))


def test_weights_of_a_block_local_training_load():
    local = build(detector_config())
    exact = build(detector_config(gradient='exact', cuts=[(1, 0)]), hooked=False)
    checkpoint = copy.deepcopy(local.state_dict())
    exact.load_state_dict(checkpoint)  # strict
    assert checkpoint.keys() == local.state_dict().keys()
    for name, value in exact.state_dict().items():
        assert torch.equal(value, checkpoint[name]), name
    missing = [name for name in checkpoint if name not in exact.state_dict()]
    assert missing
    assert all(name.startswith('backbone.auxiliary.') for name in missing)


def test_bad_values():
    with pytest.raises(ValueError, match="gradient='both' must be 'local' or 'exact'"):
        build(detector_config(gradient='both'))
    backbone = build(detector_config(gradient='exact'), hooked=False).backbone
    with pytest.raises(ValueError, match='builds no auxiliary networks'):
        backbone.switch_gradient('local')
    with pytest.raises(ValueError, match="gradient='e2e' must be"):
        backbone.switch_gradient('e2e')
