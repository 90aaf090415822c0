"""The hook that lets a resumed run go on as one that never stopped."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from mmengine.dist import get_rank
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, set_random_seed

from .model_hook import TrainingHook


@HOOKS.register_module()
class ReproducibleHook(TrainingHook):
    """Makes a run repeat itself across a resume, bit for bit where the operations are deterministic.

    MMEngine stores no state of the random number generators. This hook seeds those of Python, NumPy and PyTorch anew
    from the run's seed, the rank and the iteration, always where a resume can take over: in an iteration loop before
    each batch is fetched, in an epoch loop before each epoch, its workers' too. Persistent workers therefore start
    again with each epoch.

    It takes a fixed ``randomness=dict(seed=...)`` (without one it warns), as many ranks and workers as before and, on a
    GPU, ``randomness=dict(deterministic=True)``.

    Example:
        >>> custom_hooks = [dict(type='ReproducibleHook')]
        >>> randomness = dict(seed=0)
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Seed each fetch of an iteration loop.

        Raises:
            ValueError: An epoch loop saves checkpoints inside an epoch, from which it would start the epoch again.
        """
        if (runner.cfg.get('randomness') or {}).get('seed') is None:
            runner.logger.warning(
                'ReproducibleHook: without randomness=dict(seed=...) in the config a resumed run shuffles the data '
                'anew and differs from one that was not interrupted.'
            )
        schedulers = runner.param_schedulers or []
        for scheduler in chain(*schedulers.values()) if isinstance(schedulers, dict) else schedulers:
            if getattr(scheduler, 'need_val_args', False):
                runner.logger.warning(
                    f'ReproducibleHook: {type(scheduler).__name__} steps after a validation, and checkpoints are saved '
                    'before it: a resumed run lacks that step and differs from one that was not interrupted.'
                )
        loop = runner.train_loop
        if not hasattr(loop, 'dataloader_iterator'):
            if any(isinstance(hook, CheckpointHook) and not hook.by_epoch for hook in runner.hooks):
                raise ValueError(
                    'default_hooks.checkpoint.by_epoch=False saves inside an epoch, but an epoch loop resumes at the '
                    'start of one: set default_hooks.checkpoint.by_epoch=True, or train_cfg.by_epoch=False with '
                    'max_iters, or remove ReproducibleHook from custom_hooks'
                )
        elif not isinstance(loop.dataloader_iterator, _SeededFetch):
            loop.dataloader_iterator = _SeededFetch(loop.dataloader_iterator, runner.seed)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed an epoch and its workers."""
        if hasattr(runner.train_loop, 'dataloader_iterator'):
            return
        loader = runner.train_loop.dataloader
        seed_everything(runner.seed, get_rank(), runner.iter)
        init = loader.worker_init_fn
        loader.worker_init_fn = _SeededWorker(
            init.init if isinstance(init, _SeededWorker) else init, (runner.seed, get_rank(), runner.epoch)
        )
        if loader.persistent_workers:
            loader._iterator = None  # the generators of living workers would go on from the epoch before


def seed_everything(*entropy: int) -> None:
    """Seed Python, NumPy and PyTorch (all devices) from several non-negative integers."""
    set_random_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


class _SeededFetch:
    """An endless iterator over batches that seeds before each."""

    def __init__(self, batches: Iterator, seed: int) -> None:
        self.batches = batches
        self.seed = seed
        self.fetched = 0

    def __iter__(self) -> '_SeededFetch':
        return self

    def __next__(self) -> Any:
        # On resume MMEngine fetches and drops what was trained on already: this count is the iteration.
        seed_everything(self.seed, get_rank(), self.fetched)
        self.fetched += 1
        return next(self.batches)

    def skip_iter(self, num_iters: int) -> None:
        """Fetch and drop batches: the maintained fork's loop calls this on resume.

        Its own way moves the sampler alone, after which the workers' generators are not where they were.
        """
        for _ in range(num_iters):
            next(self)


class _SeededWorker:
    """A ``worker_init_fn`` whose seed holds the epoch."""

    def __init__(self, init: 'Callable[[int], None] | None', entropy: tuple[int, ...]) -> None:
        self.init = init
        self.entropy = entropy

    def __call__(self, worker: int) -> None:
        if self.init is not None:
            self.init(worker)
        seed_everything(*self.entropy, worker + 1)  # with 0 the seed would be the main process's
