"""What only a GPU can show: mixed precision of whole models, waits for the device, SyncBN and NCCL."""

import json
import os
import statistics
import sys
from pathlib import Path

import pytest
import torch
from helpers import detection_samples, detector_config, padded_head, segmentor_config
from mmengine.registry import init_default_scope
from processes import execute, free_port
from runners import HOOKS, segmentation_runner_config

from manpp_mm.local import Branches
from manpp_mm.memory import TrainingStep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU'),
]
ITERATIONS = 100
DEMOS = {
    'demo_faster_rcnn_r18_manpp': ['train_cfg.max_epochs=1', 'train_cfg.val_interval=2'],
    'demo_deeplabv3_r18_manpp': [f'train_cfg.max_iters={ITERATIONS}', 'train_cfg.val_interval=1000'],
}


def train(config: str, work: Path, data: Path, *flags: str) -> list[dict]:
    options = ['default_hooks.logger.interval=1', *DEMOS[config]]
    done = execute(sys.executable, 'tools/train.py', f'configs/{config}.py', '--work-dir', work, *flags,
                   '--cfg-options', *options, DEMO_ROOT=str(data))  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = next(work.glob('*/vis_data/scalars.json')).read_text().splitlines()
    return [line for line in map(json.loads, lines) if 'loss' in line]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('drawn')
    done = execute(sys.executable, 'tools/make_demo_data.py', folder, '--train', '400', '--val', '8')
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize('config', DEMOS)
def test_float16_losses_stay_beside_float32s(tmp_path, data, config):
    full = train(config, tmp_path / 'full', data)
    half = train(config, tmp_path / 'half', data, '--amp')
    assert len(full) == len(half) == ITERATIONS
    for name in ('loss', *(key for key in full[0] if key.startswith('block') and 'loss' in key)):
        ends = [statistics.mean(line[name] for line in run[-20:]) for run in (full, half)]
        assert ends[1] == pytest.approx(ends[0], rel=0.1), name


@pytest.mark.parametrize('mode', ['end_to_end', 'local'])
def test_live_bytes_are_the_allocators_beyond_workspaces(mode):
    torch.backends.cudnn.benchmark = False
    config = segmentor_config(base_channels=32, stem_channels=32)
    config.model.decode_head.in_channels = 256
    step = TrainingStep(config, mode, 8, (256, 256), device='cuda')
    step.run()  # the allocator and cuDNN warm up
    assert step.peak_bytes() == pytest.approx(step.allocated_bytes(), rel=0.1)


@pytest.mark.parametrize('make', [detector_config, segmentor_config])
def test_local_blocks_never_wait(make):
    """Neither in forward, which takes their gradients, nor in the delivery; upstream's heads wait as they do."""
    step = TrainingStep(make(), 'local', 2, (128, 128), device='cuda')
    step.run()  # cuDNN and cuBLAS start

    def forbid(*_) -> None:
        torch.cuda.set_sync_debug_mode('error')

    def allow(*_) -> None:
        torch.cuda.set_sync_debug_mode('default')

    try:
        step.model.backbone.register_forward_pre_hook(forbid)
        step.model.backbone.register_forward_hook(allow)
        losses = step.model(**step.data, mode='loss')
        delivery = sum(value for name, value in losses.items() if name.startswith('block') and 'loss' in name)
        forbid()
        delivery.backward()
    finally:
        allow()
    assert all(p.grad is not None for p in step.model.backbone.auxiliary.parameters() if p.requires_grad)


@pytest.mark.parametrize('counts', [[3, 4], [0, 5], [0, 0], [200, 1]])
def test_the_padded_head_never_waits(counts):
    init_default_scope('mmdet')
    head = padded_head(center_sampling=True).cuda()
    samples = [sample.cuda() for sample in detection_samples(counts)]
    levels = [torch.randn(len(counts), 16, side, side, device='cuda', requires_grad=True) for side in (32, 16, 8)]
    sum(head.loss(levels, samples).values()).backward()  # cuDNN and cuBLAS start
    torch.cuda.set_sync_debug_mode('error')
    try:
        sum(head.loss(levels, samples).values()).backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert all(torch.isfinite(level.grad).all() for level in levels)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_the_momentum_branchs_batch_norm_is_torchs_own(dtype):
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(8).cuda().eval()
    with torch.no_grad():
        for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            value.uniform_(0.1, 2)
    norm.requires_grad_(False)
    x = torch.randn(2, 8, 9, 9, device='cuda', dtype=dtype)
    pairs = []
    for forward in (norm, Branches(norm, branches=['momentum'])):
        leaf = x.clone().requires_grad_()
        y = forward(leaf)
        pairs.append((y, torch.autograd.grad(y.float().square().sum(), leaf)[0]))
    for found, expected in zip(*pairs, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='there are no two GPUs')
def test_synchronised_batch_norm_under_nccl(tmp_path):
    config = segmentation_runner_config(tmp_path, images=16)
    norm = dict(type='SyncBN', requires_grad=True)
    config.model.backbone.norm_cfg = config.model.decode_head.norm_cfg = norm
    config.custom_imports = dict(imports=['manpp_mm', 'recording'], allow_failed_imports=False)
    config.custom_hooks = [*HOOKS, dict(type='RankRecorder', priority='LOWEST')]
    config.dump(tmp_path / 'config.py')
    ranks = 2
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    done = execute('tools/dist_train.sh', tmp_path / 'config.py', ranks, PATH=path, PORT=free_port())
    assert done.returncode == 0, done.stderr[-3000:]
    ends = [torch.load(tmp_path / f'work/rank{r}.pt', weights_only=False, map_location='cpu') for r in range(ranks)]
    first = ends[0]
    assert any(not torch.equal(first['final'][name], value.cpu()) for name, value in first['start'].items())
    for other in ends[1:]:
        assert all(torch.equal(other['final'][name], value) for name, value in first['final'].items())
