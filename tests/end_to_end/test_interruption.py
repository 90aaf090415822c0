"""A run that is killed again and again, while it saves included, ends as one that never was."""

import signal
import sys

import pytest
import torch
from processes import execute
from runners import HOOKS, coco_runner_config

MOMENTS = [
    'before forward:2', 'before saving:2', 'writing:2', 'before rename:2', 'after rename:2', 'in forward:3',
    'in backward:4', 'before step:4', 'after step:5', 'before saving:6', 'before deletion:6', 'after deletion:8',
]  # fmt: skip


def write_config(root):
    """Eight iterations, a checkpoint after every second, the last two kept."""
    config = coco_runner_config(root)
    config.custom_imports = dict(imports=['manpp_mm', 'recording'], allow_failed_imports=False)
    config.custom_hooks = [*HOOKS, dict(type='ReproducibleHook'), dict(type='KillHook')]
    config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=8)
    config.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    config.default_hooks.checkpoint = dict(type='AtomicCheckpointHook', interval=2, by_epoch=False, max_keep_ckpts=2)
    config.param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=8)]
    path = root / 'config.py'
    config.dump(path)
    return path


@pytest.mark.slow
def test_twelve_kills_change_nothing(tmp_path):
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    final = {}
    for folder, moments in ((whole, []), (killed, MOMENTS)):
        train = [sys.executable, 'tools/train.py', write_config(folder), '--resume']
        for moment in moments:
            assert execute(*train, KILL_AT=moment).returncode == -signal.SIGKILL, moment
        done = execute(*train)
        assert done.returncode == 0, done.stderr[-3000:]
        final[folder] = torch.load(folder / 'work' / 'iter_8.pth', weights_only=False)
        assert sorted(p.name for p in (folder / 'work').glob('*.pth')) == ['iter_6.pth', 'iter_8.pth']
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        found, expected = flat(final[killed][key]), flat(final[whole][key])
        assert found.keys() == expected.keys()
        assert [name for name, value in expected.items() if not same(found[name], value)] == [], key
    assert any(name.startswith('backbone.auxiliary.0.branches.momentum') for name in final[whole]['state_dict'])


def flat(value: object, name: str = '') -> dict[str, object]:
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, inner in items for k, v in flat(inner, f'{name}/{key}').items()}
    return {name: value}


def same(a: object, b: object) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
