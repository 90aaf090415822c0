"""Hooks for trainings in a process of their own, named in a config's `custom_imports`."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from runners import BatchRecorder

from manpp_mm.hooks import atomic_checkpoint_hook as atomic


@HOOKS.register_module()
class RankRecorder(BatchRecorder):
    """Writes what a rank started from, its batches and what it ended in into the work folder."""

    def __init__(self) -> None:
        super().__init__(get_rank())

    def after_train(self, runner: Runner) -> None:
        record = dict(start=self.start, batches=self.batches, final=runner.model.module.state_dict())
        torch.save(record, Path(runner.work_dir) / f'rank{self.rank}.pt')


def kill(*_: object, **__: object) -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def half_write(backend: object, content: bytes, path: str) -> None:
    """Write the first half of a file beside its place and die."""
    with open(f'{path}.{os.getpid()}.tmp', 'wb') as file:
        file.write(content[: len(content) // 2])
        file.flush()
        os.fsync(file.fileno())
    kill()


def after(function: Callable) -> Callable:
    """Call a function and die."""
    return lambda *args, **kwargs: (function(*args, **kwargs), kill())


@HOOKS.register_module()
class KillHook(Hook):
    """Kills the process at the moment that the environment variable KILL_AT names, ``MOMENT:ITERATION``."""

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        moment, _, iteration = os.environ.get('KILL_AT', 'never:0').partition(':')
        self.moment, self.iteration = moment, int(iteration)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: 'dict | None' = None) -> None:
        if runner.iter + 1 != self.iteration:
            return
        backend, optimizer = atomic.AtomicLocalBackend, runner.optim_wrapper.optimizer
        if self.moment == 'before forward':
            kill()
        elif self.moment == 'in forward':
            runner.model.neck.register_forward_pre_hook(kill)
        elif self.moment == 'in backward':
            runner.model.backbone.layer1[0].conv1.weight.register_post_accumulate_grad_hook(kill)
        elif self.moment == 'before step':
            optimizer.register_step_pre_hook(kill)
        elif self.moment == 'after step':
            optimizer.register_step_post_hook(kill)
        elif self.moment == 'writing':
            backend.put = half_write
        elif self.moment == 'before rename':
            os.replace = kill
        elif self.moment == 'after rename':
            os.replace = after(os.replace)
        elif self.moment == 'before deletion':
            backend.remove = kill
        elif self.moment == 'after deletion':
            backend.remove = after(backend.remove)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.moment == 'before saving' and runner.iter + 1 == self.iteration:
            kill()
