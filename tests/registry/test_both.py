import inspect
from pathlib import Path

import torch
from helpers import build, detection_batch, detector_config, segmentation_batch, segmentor_config
from mmengine.config import Config

from manpp_mm.auxiliary import AuxiliaryNetwork
from manpp_mm.backbones import LocalBackbone
from manpp_mm.registry import mmdet as detection
from manpp_mm.registry import mmseg as segmentation

FRAGMENTS = Path(__file__).parents[2] / 'configs/_base_'


def test_a_detector_and_a_segmentor_train_in_one_process():
    detector, segmentor = build(detector_config()), build(segmentor_config())
    for model, batch in ((detector, detection_batch), (segmentor, segmentation_batch)) * 2:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        loss, log = model.parse_losses(model(**batch(model), mode='loss'))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert torch.isfinite(loss)
        assert any(name.startswith('block1.') for name in log)


def test_names_keys_and_defaults_are_the_same_for_both():
    def added(module):
        return {name for name in vars(module) if name.startswith('Local') and 'Mixin' not in name}

    assert added(detection) & added(segmentation) >= {'LocalResNet', 'LocalResNeXt', 'LocalSwinTransformer'}
    for module in (detection, segmentation):
        for name in added(module) - {'LocalVisionTransformer'}:  # which refuses two keys of its own
            assert vars(module)[name].__init__ is LocalBackbone.__init__
    assert detection.DetectionAuxiliary.__init__ is AuxiliaryNetwork.__init__
    own = inspect.signature(segmentation.SegmentationAuxiliary.__init__).parameters
    assert set(own) == {'self', 'args', 'loss_resolution', 'kwargs'}  # label maps alone have a resolution
    fragments = [Config.fromfile(FRAGMENTS / f'{task}.py') for task in ('detection', 'segmentation')]
    assert set(fragments[0]) - {'manpp_clip_grad'} == set(fragments[1])  # detectors clip, their local losses are FCOS's
    assert set(fragments[0].manpp_backbone) == set(fragments[1].manpp_backbone)
    for key in ('manpp_hooks', 'manpp_default_hooks', 'manpp_paramwise'):
        assert fragments[0][key] == fragments[1][key]
