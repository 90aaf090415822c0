"""Training split over processes ends in the weights of one process, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import ROOT, execute
from runners import coco_runner_config, segmentation_runner_config

MOMENTUM = 0.9


def finished(config, root: Path, momentum: bool = True) -> Path:
    """Write a config that logs each iteration and resumes like an uninterrupted run."""
    config.custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
    config.custom_hooks = [
        dict(type='LocalLearningHook', seed_blocks=True),
        *([dict(type='MomentumHook', momentum=MOMENTUM)] if momentum else []),
        dict(type='LocalScalarsHook'),
        dict(type='ReproducibleHook'),
    ]
    config.log_level = 'INFO'
    config.default_hooks.logger.interval = 1
    config.default_hooks.checkpoint.type = 'AtomicCheckpointHook'
    path = root / 'config.py'
    config.dump(path)
    return path


def train(config: Path, work: Path, *flags: object, processes: int = 0, one: tuple[str, ...] = ()) -> list[dict]:
    """Train in one process (0) or several; returns the logged scalars."""
    script = ['tools/split_train.sh', config, processes] if processes else [sys.executable, 'tools/train.py', config]
    options = [] if processes or not one else ['--cfg-options', *one]
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    done = execute(*script, '--work-dir', work, *flags, *options, PATH=path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    logs = sorted(work.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in logs[-1].read_text().splitlines()]


def assert_same_checkpoint(found: Path, expected: Path) -> None:
    """Weights, buffers and optimizer are equal bit for bit, in the same order."""
    a, b = (torch.load(path, weights_only=False) for path in (found, expected))
    assert list(a['state_dict']) == list(b['state_dict'])
    assert [name for name, value in b['state_dict'].items() if not torch.equal(a['state_dict'][name], value)] == []
    assert a['optimizer']['param_groups'] == b['optimizer']['param_groups']
    states = a['optimizer']['state'], b['optimizer']['state']
    assert states[0].keys() == states[1].keys()
    for index, state in states[1].items():
        assert all(torch.equal(states[0][index][key], value) for key, value in state.items()), index


@pytest.mark.slow
def test_a_detector_without_momentum_branches(tmp_path):
    # DGL with clipping by block; 5 batches an epoch, the last one smaller, two images without boxes, a validation after
    # each epoch, two loader workers.
    config = coco_runner_config(tmp_path, images=9, empty=(0, 5), validate=True, norm_eval=False)
    config.model.backbone.auxiliary.branches = []
    config.train_dataloader.update(num_workers=2, persistent_workers=True)
    config.train_cfg.max_epochs = 10
    config.model.test_cfg.rcnn.score_thr = 0.0  # the metrics of a model that detects nothing are empty
    config.optim_wrapper.clip_grad = dict(max_norm=2)
    config.default_hooks.checkpoint.update(interval=5, save_best='coco/bbox_mAP')
    config = finished(config, tmp_path, momentum=False)
    by_block = ('optim_wrapper.clip_grad=None', 'custom_hooks.1.type=BlockClipHook', 'custom_hooks.1.max_norm=2')
    whole, split = tmp_path / 'whole', tmp_path / 'split'
    expected = train(config, whole, one=by_block)
    found = train(config, split, '--measure', processes=2)
    assert_same_checkpoint(split / 'epoch_10.pth', whole / 'epoch_10.pth')
    assert {p.name for p in split.glob('*.pth')} == {p.name for p in whole.glob('*.pth')}

    metrics = [[entry['coco/bbox_mAP'] for entry in log if 'coco/bbox_mAP' in entry] for log in (found, expected)]
    assert metrics[0] == metrics[1] and len(metrics[0]) == 10
    steps = [[entry for entry in log if 'loss' in entry] for log in (found, expected)]
    assert len(steps[0]) == len(steps[1]) == 50
    for one, other in zip(*steps, strict=True):
        assert one['loss'] == pytest.approx(other['loss'], rel=1e-6)
        assert one.keys() - {'block0.grad_norm'} == other.keys() - {'block0.grad_norm'}
        assert one['block0.loss_cls'] == pytest.approx(other['block0.loss_cls'], rel=1e-6)
    # A norm is known after the step, so that the other process sends it with the next batch.
    norms = [[entry['block0.grad_norm'] for entry in log if 'block0.grad_norm' in entry] for log in steps]
    assert norms[0] == pytest.approx(norms[1][: len(norms[0])], rel=1e-6) and len(norms[0]) == 49

    measured = json.loads((split / 'split.json').read_text())
    assert {tuple(span[:2]) for span in measured['spans']} == {(p, i) for p in range(2) for i in range(50)}
    assert [held['process'] for held in measured['held']] == [0, 1]
    # Each value lives in one process.
    saved = torch.load(split / 'epoch_10.pth', weights_only=False)
    values = [*saved['state_dict'].values()]
    values += [value for state in saved['optimizer']['state'].values() for value in state.values()]
    assert sum(held['state'] for held in measured['held']) == sum(value.nbytes for value in values)
    assert min(held['state'] for held in measured['held']) > 4e5
    assert (split / 'split.png').stat().st_size > 10_000


@pytest.mark.slow
def test_a_segmentor_that_waits_and_resumes(tmp_path):
    # MAN++ in three processes from the start, in one, in two.
    config = segmentation_runner_config(tmp_path, images=10, validate=True)
    config.train_cfg.update(max_iters=50, val_interval=20)
    config.default_hooks.checkpoint.update(interval=15, save_best='mIoU')
    config = finished(config, tmp_path)
    whole, split = tmp_path / 'whole', tmp_path / 'split'
    train(config, whole)
    train(config, split, '--delay', 0, '--split', '1,2,1', processes=3)
    assert_same_checkpoint(split / 'iter_50.pth', whole / 'iter_50.pth')
    for last in ('iter_50', 'iter_45', 'iter_30', 'best_*'):
        for path in split.glob(f'{last}.pth'):
            path.unlink()
    (split / 'last_checkpoint').write_text(str(split / 'iter_15.pth'))
    train(config, split, '--resume', one=('train_cfg.max_iters=30',))
    (split / 'last_checkpoint').write_text(str(split / 'iter_30.pth'))
    # The next validation finds a better model, and the last process alone replaces the best checkpoint.
    checkpoint = torch.load(split / 'iter_30.pth', weights_only=False)
    before = Path(checkpoint['message_hub']['runtime_info']['best_ckpt'])
    assert before.parent == split
    checkpoint['message_hub']['runtime_info']['best_score'] = -1.0
    torch.save(checkpoint, split / 'iter_30.pth')
    before.touch()
    train(config, split, '--resume', '--delay', 0, processes=2)
    (best,) = split.glob('best_*.pth')
    assert best.name in ('best_mIoU_iter_40.pth', 'best_mIoU_iter_50.pth')
    assert_same_checkpoint(split / 'iter_50.pth', whole / 'iter_50.pth')


@pytest.mark.slow
def test_momentum_branches_follow_late(tmp_path):
    config = segmentation_runner_config(tmp_path, images=10)
    config.train_cfg.max_iters = 6
    config.optim_wrapper.optimizer.lr = 0.3
    config.default_hooks.checkpoint.interval = 1
    config = finished(config, tmp_path)
    train(config, tmp_path / 'late', '--delay', 2, '--split', '3,1', processes=2)
    states = [torch.load(tmp_path / f'late/iter_{i}.pth', weights_only=False)['state_dict'] for i in range(1, 7)]
    branch, unit = 'backbone.auxiliary.2.branches.momentum.conv1.weight', 'backbone.layer4.0.conv1.weight'
    expected = states[0][branch]
    for number in range(2, 7):
        # The weights after step n - 2; the initial ones until then, from which the branch started.
        followed = states[number - 3][unit] if number > 2 else states[0][branch]
        expected = torch.lerp(expected, followed, 1 - MOMENTUM)
        torch.testing.assert_close(states[number - 1][branch], expected, rtol=0, atol=1e-6)
    assert not torch.allclose(states[5][branch], states[0][branch], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('number', [0, 1])
def test_a_killed_process_ends_the_other(tmp_path, number):
    config = segmentation_runner_config(tmp_path, images=10)
    config.train_cfg.max_iters = 100_000
    config.default_hooks.checkpoint.interval = 10
    config = finished(config, tmp_path)
    running, workers = started(config, tmp_path)
    os.kill(workers[number], signal.SIGKILL)
    killed = time.monotonic()
    out, err = running.communicate(timeout=60)
    assert time.monotonic() - killed < 20
    assert running.returncode == 1
    lines = [line for line in err.splitlines() if 'rror' in line]
    assert lines == [
        f'error: process {number} was killed by signal 9 (9: possibly out of memory); --resume continues from the '
        'latest checkpoint'
    ], err
    assert 'Traceback' not in out + err
    assert not any(alive(pid) for pid in workers)
    if number == 1:
        return
    latest = int((tmp_path / 'work/last_checkpoint').read_text().rsplit('_', 1)[1].removesuffix('.pth'))
    assert latest >= 10
    log = train(
        config, tmp_path / 'work', '--resume', '--cfg-options', f'train_cfg.max_iters={latest + 2}', processes=2
    )
    assert [entry['step'] for entry in log] == [latest + 1, latest + 2]


@pytest.mark.slow
def test_an_interrupt_ends_all(tmp_path):
    config = segmentation_runner_config(tmp_path, images=10)
    config.train_cfg.max_iters = 100_000
    config.default_hooks.checkpoint.interval = 10
    running, workers = started(finished(config, tmp_path), tmp_path)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert err.splitlines()[-1] == 'interrupted; --resume continues from the latest checkpoint'
    assert 'Traceback' not in out + err
    assert not any(alive(pid) for pid in workers)


@pytest.mark.slow
def test_an_error_is_printed_once(tmp_path):
    config = finished(segmentation_runner_config(tmp_path), tmp_path)
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    options = ['--cfg-options', 'model.backbone.lateral_gradient=True']  # every process finds it
    done = execute('tools/split_train.sh', config, 2, *options, PATH=path)
    assert done.returncode == 1
    (error,) = (line for line in done.stderr.splitlines() if 'rror' in line)
    assert 'lateral_gradient=True cannot be split' in error


def started(config: Path, root: Path) -> tuple[subprocess.Popen, list[int]]:
    """Start a split training in two processes; returns it and their process ids once a checkpoint is there."""
    own = dict(PYTHONWARNINGS='ignore', OMP_NUM_THREADS='1', PYTHONPATH=f'{ROOT}:{ROOT / "tests"}')
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    running = subprocess.Popen(
        ['tools/split_train.sh', str(config), '2'], cwd=ROOT, env=os.environ | own | dict(PATH=path),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (root / 'work/last_checkpoint').exists() and time.monotonic() < deadline:
        assert running.poll() is None, running.communicate()
        time.sleep(0.2)
    children = Path(f'/proc/{running.pid}/task/{running.pid}/children').read_text().split()
    workers = {}
    for pid in children:
        environment = Path(f'/proc/{pid}/environ').read_text().split('\0')
        rank = next((entry for entry in environment if entry.startswith('RANK=')), None)
        if rank is not None:
            workers[int(rank.removeprefix('RANK='))] = int(pid)
    assert sorted(workers) == [0, 1]
    return running, [workers[0], workers[1]]


def alive(pid: int) -> bool:
    return Path(f'/proc/{pid}').exists()
