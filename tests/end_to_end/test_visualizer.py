"""What TensorBoard shows of a block-local training: block losses, scaling biases, sample predictions."""

import pytest
from runners import coco_runner_config, runner, segmentation_runner_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TASKS = {
    'detector': (coco_runner_config, 'DetVisualizationHook', {'block0.loss_cls', 'block1.loss_bbox'}),
    'segmentor': (segmentation_runner_config, 'SegVisualizationHook', {'block0.loss_ce', 'block2.loss_ce'}),
}


@pytest.mark.parametrize('task', TASKS)
def test_tensorboard(tmp_path, task):
    make, painter, losses = TASKS[task]
    config = make(tmp_path, validate=True)
    config.visualizer.vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    config.default_hooks.visualization = dict(type=painter, draw=True, interval=1)
    config.default_hooks.scalars = dict(type='LocalScalarsHook')
    config.default_hooks.logger.interval = 1
    runner(config).train()
    (folder,) = {path.parent for path in tmp_path.rglob('events.out.tfevents*')}
    events = EventAccumulator(str(folder), size_guidance=dict(images=0)).Reload()
    tags = set(events.Tags()['scalars'])
    assert losses | {'block0.scaling', 'block0.momentum_distance', 'loss', 'lr'} <= tags
    assert len(events.Scalars('block0.scaling')) == 4
    assert all(0 < event.value < 100 for event in events.Scalars(min(losses)))
    assert len(events.Tags()['images']) >= 1
    assert len(list(folder.glob('vis_image/*.png'))) >= 4
