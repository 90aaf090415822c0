"""Two gloo ranks on a CPU end in the parameters of one process that averages the gradients of their batches."""

import os
import sys
from pathlib import Path

import pytest
import torch
from processes import execute, free_port
from runners import HOOKS, assert_same_state, coco_runner_config, naive_training, segmentation_runner_config

TOLERANCE = 1e-4
"""Relative to what training moved each tensor, float32."""


def train(config, root: Path, *hooks: dict) -> list[dict]:
    """Train in two processes through tools/dist_train.sh; returns each rank's record."""
    config.custom_imports = dict(imports=['manpp_mm', 'recording'], allow_failed_imports=False)
    config.custom_hooks = [*HOOKS, *hooks, dict(type='RankRecorder', priority='LOWEST')]
    config.dump(root / 'config.py')
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    done = execute('tools/dist_train.sh', root / 'config.py', 2, PATH=path, PORT=free_port())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = [torch.load(root / f'work/rank{rank}.pt', weights_only=False) for rank in range(2)]
    first, second = (record['final'] for record in records)
    assert [name for name, value in first.items() if not torch.equal(second[name], value)] == []
    assert len(records[0]['batches']) >= 3
    return records


def check(config, records: list[dict], exact=lambda iteration: False, idle: str | None = None) -> None:
    """The ranks' end is that of one process on the mean of both ranks' gradients, but for tensors that idled."""
    start = records[0]['start']
    batches = list(zip(*(record['batches'] for record in records), strict=True))
    expected = naive_training(config, start, batches, exact=exact)
    found = records[0]['final']
    if idle is not None:
        found, expected = ({k: v for k, v in state.items() if idle not in k} for state in (found, expected))
    assert_same_state(found, expected, start, TOLERANCE)


def detector(root: Path, **options: object):
    # FCOSHead divides its losses by the mean number of positives over all ranks, which one process cannot know.
    head = dict(type='RetinaHead', num_classes=3, feat_channels=16, stacked_convs=1)
    config = coco_runner_config(root, auxiliary=dict(projection=dict(out_channels=16), head=head), **options)
    config.train_dataloader.batch_size = 1
    return config


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize('static_graph', [False, True])
def test_detector(tmp_path, static_graph):
    config = detector(tmp_path)
    config.model_wrapper_cfg = dict(type='MMDistributedDataParallel', static_graph=static_graph)
    config.find_unused_parameters = False
    check(config, train(config, tmp_path))


@pytest.mark.slow
def test_exact_throughout(tmp_path):
    config = detector(tmp_path, gradient='exact')
    config.find_unused_parameters = False
    check(config, train(config, tmp_path), exact=lambda iteration: True)


@pytest.mark.slow
@pytest.mark.parametrize('stretch', [dict(end=2, by_epoch=False), dict(begin=2, by_epoch=False)])
def test_a_switch_between_exact_and_local(tmp_path, stretch):
    config = detector(tmp_path)
    config.find_unused_parameters = False
    records = train(config, tmp_path, dict(type='GradientSwitchHook', **stretch))
    # While they idle, DDP gives the auxiliary networks gradients of zero: momentum and weight decay move them.
    early = 'end' in stretch
    check(config, records, exact=lambda iteration: (iteration < 2) == early, idle='backbone.auxiliary')


@pytest.mark.slow
def test_heads_checkpointed_and_losses_taken_early(tmp_path):
    config = detector(tmp_path)
    config.find_unused_parameters = False
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
def test_segmentor_equals_the_joined_batch_too(tmp_path):
    config = segmentation_runner_config(tmp_path, images=8, norm_eval=True)
    norm = dict(type='GN', num_groups=4)  # batch statistics would differ between a rank's batch and the joined one
    config.model.decode_head.update(norm_cfg=norm, dropout_ratio=0)
    config.model.backbone.auxiliary.head.update(norm_cfg=norm, dropout_ratio=0)
    records = train(config, tmp_path)
    check(config, records)
    joined = [
        [{key: [*a[key], *b[key]] for key in a}]
        for a, b in zip(*(record['batches'] for record in records), strict=True)
    ]
    start = records[0]['start']
    assert_same_state(records[0]['final'], naive_training(config, start, joined), start, TOLERANCE)
