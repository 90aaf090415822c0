"""Build a Runner from a config, in one process or several."""

import atexit
import os
import time
from datetime import timedelta
from typing import Any
from urllib.error import URLError

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, init_dist
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from ..backbones import local_class
from ..checks.weights import not_fetched
from ..compat.mmpretrain import complete_loaders
from ..hooks.resumed_iteration_hook import ResumedIterationHook
from ..memory.fit import PLAN, apply_plan, fit, keep_plan, needs_plan, predicted_peak, report_of

_PLANNING_SECONDS = 3600
"""How long the other processes wait for the first one, which may be planning."""

_RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
"""Environment variables in which the launchers store the rank of a process."""


def prepare(
    config: Config,
    checkpoint: str | None = None,
    predict: bool = False,
    memory: str | None = None,
    method: str | None = None,
) -> tuple[Config, str]:
    """Fit a config and connect the processes of a launcher.

    The first process plans and predicts for all of them, because different plans break DDP. It does so before the
    processes are connected: the losses of a detector wait for all connected processes.

    Args:
        config: The config; not modified.
        checkpoint: The checkpoint to resume or test; its plan is kept, see :func:`manpp_mm.memory.fit.keep_plan`.
        predict: Whether to predict the memory of a training step if there is no plan.
        memory, method: See :func:`manpp_mm.memory.fit.fit`.

    Returns:
        The fitted config, and the plan or prediction for the log: '' in other processes and if there is neither.

    Raises:
        ValueError: See :func:`manpp_mm.memory.fit.fit` and :func:`manpp_mm.memory.fit.keep_plan`.
        RuntimeError: In other processes, if the first one could not plan.
    """
    first = first_process(config)
    shares = needs_plan(config) or any(each is not None for each in (checkpoint, memory, method))
    fitted, words, error = config, '', None
    if first:
        try:
            fitted = _fitted(config, checkpoint, memory, method)
            if fitted is not config:
                kept = [f'Keeping the plan that {checkpoint} was trained with:'] if checkpoint is not None else []
                words = '\n'.join([*kept, *report_of(fitted[PLAN])])
            elif predict:
                words = predict_memory(config)
        except Exception as caught:  # the other processes wait, so they must be told
            error = caught
    start_processes(fitted)
    if shares:
        message: list[Any] = [None if fitted is config else fitted[PLAN].to_dict(), str(error) if error else None]
        broadcast_object_list(message)
        plan, fault = message
        if fault is not None and not first:
            raise RuntimeError(f'the first process could not plan: {fault}')
        if plan is not None and not first:
            fitted = apply_plan(config, plan)
    if error is not None:
        raise error
    return fitted, words


def _fitted(config: Config, checkpoint: str | None, memory: str | None, method: str | None) -> Config:
    """Return the fitted config, or the config itself if there is nothing to fit."""
    if checkpoint is not None:
        return keep_plan(config, checkpoint, memory, method)
    if memory is None and method is None and not needs_plan(config):
        return config
    print(
        'Planning with steps on small images, on the CPU. This takes half a minute, large models need more.', flush=True
    )
    return fit(config, memory, method)


def first_process(config: Config) -> bool:
    """Return whether this is a launcher's first process, or the only one. Works before the processes are connected."""
    if config.launcher == 'none':
        return True
    rank = next((os.environ[name] for name in _RANKS if name in os.environ), '0')
    return rank == '0'


def start_processes(config: Config) -> None:
    """Connect the processes of a launcher, through gloo if there is no CUDA. A single process needs nothing."""
    if config.launcher == 'none' or dist.is_initialized():
        return
    if config.launcher == 'pytorch' and not torch.cuda.is_available():
        # MMEngine's own start-up and its default wrapper both require a CUDA device.
        dist.init_process_group('gloo', timeout=timedelta(seconds=_PLANNING_SECONDS))
        atexit.register(_leave_process_group)
        default = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=config.get('find_unused_parameters', False),
        )
        config.setdefault('model_wrapper_cfg', default)
        config.model_wrapper_cfg.setdefault('device_ids', None)
    else:
        given = (config.get('env_cfg') or {}).get('dist_cfg', dict(backend='nccl'))
        init_dist(config.launcher, **(dict(timeout=_PLANNING_SECONDS) | given))


def predict_memory(config: Config) -> str:
    """Return a log line with the predicted memory of a block-local training step; '' for other configs."""
    if local_class(config) is None:
        return ''
    try:
        return predicted_peak(config)
    except Exception as error:
        # An op without a CPU kernel, a head that needs other targets, images without a fixed size: a log line must
        # never stop a training, so it reports the reason instead.
        return f'The memory of a step cannot be predicted: {type(error).__name__}: {error}'


def checkpoint_to_resume(config: Config) -> str | None:
    """Return the checkpoint that a training resumes from, None for a new training."""
    if not config.get('resume'):
        return None
    return config.get('load_from') or find_latest_checkpoint(config.work_dir)


def build_runner(config: Config) -> Runner:
    """Build the Runner of a config."""
    complete_loaders(config)
    return RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)


def train(runner: Runner) -> None:
    """Train a model.

    Raises:
        ValueError: Weights could not be downloaded; the message names their config key.
    """
    runner.register_hook(ResumedIterationHook())
    try:
        runner.train()
    except URLError as error:
        raise ValueError(not_fetched(runner.cfg, error)) from error


def _leave_process_group() -> None:
    # A gloo thread may still wait for the interpreter lock to release the last collective's tensor. If it gets the
    # lock while the interpreter shuts down, the process aborts after its work is done. A sleep hands the lock over.
    time.sleep(0.5)
    if dist.is_initialized():
        dist.destroy_process_group()
