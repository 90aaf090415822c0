"""A published file is the plain model's: same outputs, no auxiliary network, and nobody needs this package."""

import sys
from pathlib import Path

import pytest
import torch
from helpers import classification_batch, detection_batch, segmentation_batch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from processes import execute
from runners import classification_runner_config, coco_runner_config, runner, segmentation_runner_config

from manpp_mm.publish import plain_config, publish

OURS = 'manpp LocalResNet LocalLearning auxiliary. Atomic PresentClass CheckLabels FiniteLoss Scalars'
TASKS = {
    'detector': (coco_runner_config, detection_batch, 'ResNet'),
    'segmentor': (segmentation_runner_config, segmentation_batch, 'ResNetV1c'),
    'classifier': (classification_runner_config, classification_batch, 'ResNet'),
}


def trained(root: Path, make, hooks: list = ()):
    """A small model after a block-local training of the whole set of hooks, and its checkpoint."""
    config = make(root, validate=True)
    config.custom_hooks = [
        *config.custom_hooks, dict(type='FiniteLossHook'), dict(type='ReproducibleHook'), *hooks
    ]  # fmt: skip
    config.default_hooks.scalars = dict(type='LocalScalarsHook')
    config.default_hooks.checkpoint = dict(type='AtomicCheckpointHook', interval=4, by_epoch=False)
    if config.default_scope != 'mmseg':
        config.default_hooks.checkpoint.update(interval=1, by_epoch=True)
    else:
        config.val_evaluator = dict(type='PresentClassIoUMetric', leave_out=['a'])
        config.train_dataloader.dataset.pipeline.insert(2, dict(type='CheckLabels', num_classes=4))
    config.update(test_dataloader=config.val_dataloader, test_evaluator=config.val_evaluator, test_cfg=dict())
    config.custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
    config.optim_wrapper.paramwise_cfg = dict(custom_keys={'backbone.auxiliary': dict(lr_mult=1.0)})
    config.manpp_paramwise = config.optim_wrapper.paramwise_cfg
    run = runner(config)
    run.train()
    return run.model, Path((root / 'work/last_checkpoint').read_text())


def outputs(model, data) -> list[torch.Tensor]:
    with torch.no_grad():
        model.eval()
        if not hasattr(model, 'roi_head'):
            return [model(data['inputs'], mode='tensor')]
        found = [sample.pred_instances for sample in model(data['inputs'], data['data_samples'], mode='predict')]
        assert sum(len(instances) for instances in found) > 0
        boxes = [value for instances in found for value in (instances.bboxes, instances.scores, instances.labels)]
        return [*model.extract_feat(data['inputs']), *boxes]


@pytest.mark.parametrize('task', TASKS)
def test_outputs_are_the_local_models_bit_for_bit(tmp_path, task):
    if task == 'classifier':
        pytest.importorskip('mmpretrain')
    make, batch, backbone = TASKS[task]
    local, checkpoint = trained(tmp_path, make)
    path = publish(checkpoint, tmp_path / 'model.pth')
    assert path.name.startswith('model-')
    assert len(path.stem) == len('model-') + 8
    assert sorted(p.name for p in tmp_path.glob('*.pth')) == [path.name]  # nothing half-written beside it
    found = torch.load(path, weights_only=True)
    assert found.keys() == {'meta', 'state_dict'}
    config = Config.fromstring(found['meta']['cfg'], '.py')
    assert config.model.backbone.type == backbone
    assert not any(word in found['meta']['cfg'] for word in OURS.split())
    init_default_scope(config.default_scope)
    plain = MODELS.build(config.model)
    plain.load_state_dict(found['state_dict'])  # strict
    data = batch(plain)
    for a, b in zip(outputs(local, data), outputs(plain, data), strict=True):
        assert torch.equal(a, b)


def test_averaged_weights_are_published_and_raw_ones_on_demand(tmp_path):
    local, checkpoint = trained(tmp_path, segmentation_runner_config, [dict(type='EMAHook', momentum=0.5)])
    paths = [publish(checkpoint, tmp_path / 'model.pth', raw) for raw in (False, True)]
    states = [torch.load(path, weights_only=True)['state_dict'] for path in paths]
    name = 'backbone.layer1.0.conv1.weight'
    assert torch.equal(states[1][name], local.state_dict()[name])
    assert not torch.equal(states[0][name], states[1][name])
    assert states[0].keys() == states[1].keys()


@pytest.mark.slow
def test_the_published_file_needs_no_manpp_mm(tmp_path):
    _, checkpoint = trained(tmp_path, segmentation_runner_config)
    path = publish(checkpoint, tmp_path / 'model.pth')
    code = (
        # Where mmcv has its compiled ops nothing else is needed; here its stand-in alone is loaded.
        'import importlib.util, sys\n'
        "spec = importlib.util.spec_from_file_location('ops', 'manpp_mm/compat/mmcv_ops.py')\n"
        'ops = importlib.util.module_from_spec(spec); spec.loader.exec_module(ops); ops.apply()\n'
        "sys.modules['manpp_mm'] = None\n"
        'import numpy as np\n'
        'from mmseg.apis import MMSegInferencer\n'
        f"inferencer = MMSegInferencer(None, {str(path)!r}, device='cpu')\n"
        "print('classes', inferencer(np.zeros((64, 64, 3), np.uint8))['predictions'].shape)"
    )
    done = execute(sys.executable, '-c', code)
    assert 'classes (64, 64)' in done.stdout, done.stderr[-2000:]


def test_what_cannot_be_published(tmp_path):
    def refused(message, path, target='model.pth', raw=False):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            publish(path, tmp_path / target, raw)

    refused('there is no checkpoint', tmp_path / 'none.pth')
    torch.save(dict(state_dict={}), tmp_path / 'weights.pth')
    refused('is not a training checkpoint: it needs state_dict and meta.cfg', tmp_path / 'weights.pth')
    cfg = "model = dict(backbone=dict(type='ResNet'))"
    torch.save(dict(state_dict={}, meta=dict(cfg=cfg)), tmp_path / 'plain.pth')
    refused('must end in .pth', tmp_path / 'plain.pth', 'model.onnx')
    refused('there is no folder', tmp_path / 'plain.pth', 'folder/model.pth')
    _, checkpoint = trained(tmp_path / 'run', segmentation_runner_config)
    refused('--raw: .* holds no averaged weights', checkpoint, raw=True)
    found = torch.load(checkpoint, weights_only=False)
    del found['state_dict']['decode_head.conv_seg.weight']
    torch.save(found, tmp_path / 'broken.pth')
    refused('does not fit the plain model of its own config', tmp_path / 'broken.pth')


def test_a_checkpoint_that_was_not_trained_block_by_block(tmp_path):
    """Of a training that was fitted: the hooks that spare memory stay here."""
    config = segmentation_runner_config(tmp_path)
    backbone = config.model.backbone
    config.model.backbone = {k: v for k, v in backbone.items() if k not in ('cuts', 'auxiliary')} | dict(
        type='ResNetV1c'
    )
    config.custom_hooks = [dict(type='CheckpointModulesHook', modules=['decode_head'])]
    config.custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
    config.manpp_plan = dict(method='end_to_end')
    config.default_hooks.checkpoint.update(interval=4, by_epoch=False)
    runner(config).train()
    found = torch.load(publish(tmp_path / 'work/iter_4.pth', tmp_path / 'plain.pth'), weights_only=False)
    assert set(found) == {'meta', 'state_dict'}
    published = Config.fromstring(found['meta']['cfg'], '.py')
    assert published.custom_hooks == []
    assert 'manpp_plan' not in published and 'custom_imports' not in published
    assert published.model.backbone.type == 'ResNetV1c'


@pytest.mark.slow
def test_the_tool(tmp_path):
    done = execute(sys.executable, 'tools/publish_model.py', tmp_path / 'none.pth', tmp_path / 'model.pth')
    assert done.returncode == 1
    assert done.stderr.strip().endswith(f'error: there is no checkpoint {tmp_path / "none.pth"}')


@pytest.mark.parametrize('kind', ['LocalCIFARResNet', 'CIFARResNet'])
def test_a_backbone_of_this_projects_own_asks_for_it(tmp_path, kind):
    pytest.importorskip('mmpretrain')
    assert plain_config(Config(dict(
        default_scope='mmpretrain', custom_imports=dict(imports='manpp_mm'),
        model=dict(backbone=dict(type=kind, depth=8)),
    ))).custom_imports.imports == ['manpp_mm']  # fmt: skip
    if kind == 'CIFARResNet':
        return
    own = dict(type='LocalCIFARResNet', depth=8, base_channels=32, num_stages=3, out_indices=(2,))
    local = own | dict(cuts=[(-1, 0), (0, 0)])
    _, checkpoint = trained(tmp_path, lambda root, **keys: classification_runner_config(root, **keys, **local))
    found = torch.load(publish(checkpoint, tmp_path / 'model.pth'), weights_only=True)
    config = Config.fromstring(found['meta']['cfg'], '.py')
    assert config.model.backbone.type == 'CIFARResNet'
    assert config.custom_imports.imports == ['manpp_mm']
    assert 'Mosaic' in found['meta']['cfg'] and 'auxiliary' not in found['meta']['cfg']
