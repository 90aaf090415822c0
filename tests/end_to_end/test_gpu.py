"""What only a GPU can show: mixed precision of whole models, SyncBN and NCCL."""

import json
import os
import statistics
import sys
from pathlib import Path

import pytest
import torch
from helpers import segmentor_config
from processes import execute, free_port
from runners import HOOKS, segmentation_runner_config

from manpp_mm.profiling import TrainingStep

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
