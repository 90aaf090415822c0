"""Two gloo ranks on a CPU end in the parameters of one process that averages the gradients of their batches."""

import os
import sys
from pathlib import Path

import pytest
import torch
from helpers import with_swin
from processes import execute, free_port
from runners import (
    HOOKS,
    assert_same_state,
    classification_runner_config,
    coco_runner_config,
    naive_training,
    segmentation_runner_config,
)

TOLERANCE = 1e-3
"""Relative to what training moved each tensor, float32; BatchNorm over one image makes much of rounding."""


def train(config, root: Path, *hooks: dict, live: bool = True) -> list[dict]:
    """Train in two processes through tools/dist_train.sh, with live BatchNorm or not; returns each rank's record."""
    config.custom_imports = dict(imports=['manpp_mm', 'recording'], allow_failed_imports=False)
    config.custom_hooks = [*HOOKS, *hooks, dict(type='RankRecorder', priority='LOWEST')]
    config.dump(root / 'config.py')
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    done = execute('tools/dist_train.sh', root / 'config.py', 2, PATH=path, PORT=free_port())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = [torch.load(root / f'work/rank{rank}.pt', weights_only=False) for rank in range(2)]
    first, second = (record['final'] for record in records)
    differing = {name for name, value in first.items() if not torch.equal(second[name], value)}
    # MMEngine's default wrapper leaves each rank its own statistics (broadcast_buffers=False).
    own = {name for name in first if name.endswith(('running_mean', 'running_var'))}
    assert differing <= own
    assert bool(differing) == live
    assert len(records[0]['batches']) >= 3
    return records


def check(config, records: list[dict], exact=lambda iteration: False) -> None:
    """The first rank's end is that of one process on the mean of both ranks' gradients."""
    start = records[0]['start']
    batches = list(zip(*(record['batches'] for record in records), strict=True))
    expected = naive_training(config, start, batches, exact=exact)
    assert_same_state(records[0]['final'], expected, start, TOLERANCE)


def detector(root: Path, **options: object):
    # FCOSHead divides its losses by the mean number of positives over all ranks, which one process cannot know.
    head = dict(type='RetinaHead', num_classes=3, feat_channels=16, stacked_convs=1)
    auxiliary = dict(projection=dict(out_channels=16), head=head)
    config = coco_runner_config(root, auxiliary=auxiliary, **dict(norm_eval=False) | options)
    config.train_dataloader.batch_size = 1
    return config


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize(('unused', 'lateral'), [(False, False), (True, True)])
def test_detector(tmp_path, unused, lateral):
    config = detector(tmp_path, lateral_gradient=lateral)
    config.find_unused_parameters = unused
    check(config, train(config, tmp_path))


@pytest.mark.slow
def test_a_static_graph(tmp_path):
    config = detector(tmp_path, lateral_gradient=True)
    config.model_wrapper_cfg = dict(type='MMDistributedDataParallel', static_graph=True, broadcast_buffers=False)
    check(config, train(config, tmp_path))


@pytest.mark.slow
def test_swin(tmp_path):
    config = with_swin(detector(tmp_path))
    config.optim_wrapper.optimizer.lr = 0.002
    check(config, train(config, tmp_path, live=False))


@pytest.mark.slow
def test_cuts_are_planned_once_for_all(tmp_path):
    # A detector, whose losses reduce over all processes that there are.
    config = coco_runner_config(tmp_path, cuts=None, local_blocks='auto', norm_eval=False)
    config.train_dataloader.batch_size = 1
    config.log_level = 'INFO'
    records = train(config, tmp_path)
    logs = [path.read_text() for path in tmp_path.glob('work/*/*.log')]
    assert sum('INFO - Fitted: manpp' in log for log in logs) == 1
    assert any('auxiliary' in name for name in records[0]['final'])


@pytest.mark.slow
def test_exact_throughout(tmp_path):
    config = detector(tmp_path, gradient='exact')
    check(config, train(config, tmp_path), exact=lambda iteration: True)


@pytest.mark.slow
@pytest.mark.parametrize('stretch', [dict(end=2, by_epoch=False), dict(begin=2, by_epoch=False)])
def test_a_switch_between_exact_and_local(tmp_path, stretch):
    config = detector(tmp_path)
    records = train(config, tmp_path, dict(type='GradientSwitchHook', **stretch))
    early = 'end' in stretch
    check(config, records, exact=lambda iteration: (iteration < 2) == early)  # idle auxiliary networks stand still


@pytest.mark.slow
def test_heads_checkpointed_and_losses_taken_early(tmp_path):
    config = detector(tmp_path)
    hooks = [
        dict(type='CheckpointModulesHook', modules=['neck', 'roi_head.bbox_head']),
        dict(type='EarlyLossHook', heads=['rpn_head']),
    ]
    check(config, train(config, tmp_path, *hooks))


@pytest.mark.slow
def test_images_without_objects_on_one_rank(tmp_path):
    config = detector(tmp_path, empty=(0, 2))
    config.train_dataloader.sampler.shuffle = False
    records = train(config, tmp_path)
    objects = [[len(b['data_samples'][0].gt_instances) for b in record['batches']] for record in records]
    assert objects == [[0] * 4, [1] * 4]
    check(config, records)


@pytest.mark.slow
def test_a_classifier_with_its_stem_as_a_block(tmp_path):
    pytest.importorskip('mmpretrain')
    config = classification_runner_config(tmp_path)
    config.train_dataloader.batch_size = 4
    # A bias that BatchNorm takes away again has no gradient but rounding.
    auxiliary = config.model.backbone.auxiliary
    auxiliary.update(projection=dict(out_channels=8, norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU')))
    auxiliary.head.norm_cfg = None
    check(config, train(config, tmp_path))


@pytest.mark.slow
def test_segmentor_equals_the_joined_batch_too(tmp_path):
    config = segmentation_runner_config(tmp_path, images=8, norm_eval=True)
    norm = dict(type='GN', num_groups=4)  # batch statistics would differ between a rank's batch and the joined one
    config.model.decode_head.update(norm_cfg=norm, dropout_ratio=0)
    config.model.backbone.auxiliary.head.update(norm_cfg=norm, dropout_ratio=0)
    records = train(config, tmp_path, live=False)
    check(config, records)
    joined = [
        [{key: [*a[key], *b[key]] for key in a}]
        for a, b in zip(*(record['batches'] for record in records), strict=True)
    ]
    start = records[0]['start']
    assert_same_state(records[0]['final'], naive_training(config, start, joined), start, TOLERANCE)
