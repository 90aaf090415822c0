"""A hook that makes a resumed run equal to an uninterrupted one."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..random_numbers import seed_everything
from .model_hook import TrainingHook


@HOOKS.register_module()
class ReproducibleHook(TrainingHook):
    """Makes a resumed run equal to an uninterrupted one, bit for bit if the operations are deterministic.

    MMEngine does not store the state of the random number generators. This hook reseeds those of Python, NumPy and
    PyTorch from the run's seed, the rank and the iteration wherever a run can resume: before each batch in an iteration
    loop, before each epoch in an epoch loop, including its workers. Persistent workers are therefore restarted with
    each epoch.

    It needs a fixed ``randomness=dict(seed=...)`` (otherwise it warns), the same number of ranks and workers and, on a
    GPU, ``randomness=dict(deterministic=True)``.

    Example:
        >>> custom_hooks = [dict(type='ReproducibleHook')]
        >>> randomness = dict(seed=0)
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Seed each batch of an iteration loop.

        Raises:
            ValueError: An epoch loop saves checkpoints within an epoch; on resume, it would restart that epoch.
        """
        if (runner.cfg.get('randomness') or {}).get('seed') is None:
            runner.logger.warning(
                'ReproducibleHook: without randomness=dict(seed=...) in the config, a resumed run reshuffles the data '
                'and differs from an uninterrupted one.'
            )
        schedulers = runner.param_schedulers or []
        for scheduler in chain(*schedulers.values()) if isinstance(schedulers, dict) else schedulers:
            if getattr(scheduler, 'need_val_args', False):
                runner.logger.warning(
                    f'ReproducibleHook: {type(scheduler).__name__} steps after a validation, but checkpoints are saved '
                    'before it: a resumed run lacks that step and differs from an uninterrupted one.'
                )
        loop = runner.train_loop
        if not hasattr(loop, 'dataloader_iterator'):
            if any(isinstance(hook, CheckpointHook) and not hook.by_epoch for hook in runner.hooks):
                raise ValueError(
                    'default_hooks.checkpoint.by_epoch=False saves within an epoch, but an epoch loop resumes at the '
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
            loader._iterator = None  # running workers would keep the generators of the previous epoch


class _SeededFetch:
    """An endless iterator over batches that seeds before each batch."""

    def __init__(self, batches: Iterator, seed: int) -> None:
        self.batches = batches
        self.seed = seed
        self.fetched = 0

    def __iter__(self) -> '_SeededFetch':
        return self

    def __next__(self) -> Any:
        # On resume, MMEngine fetches and drops the batches already used, so this count equals the iteration.
        seed_everything(self.seed, get_rank(), self.fetched)
        self.fetched += 1
        return next(self.batches)

    def skip_iter(self, num_iters: int) -> None:
        """Fetch and drop batches; the maintained fork's loop calls this on resume.

        The fork's own method advances only the sampler, not the generators of the workers.
        """
        for _ in range(num_iters):
            next(self)


class _SeededWorker:
    """A ``worker_init_fn`` whose seed includes the epoch."""

    def __init__(self, init: 'Callable[[int], None] | None', entropy: tuple[int, ...]) -> None:
        self.init = init
        self.entropy = entropy

    def __call__(self, worker: int) -> None:
        if self.init is not None:
            self.init(worker)
        seed_everything(*self.entropy, worker + 1)  # + 1, because 0 would give the main process's seed
