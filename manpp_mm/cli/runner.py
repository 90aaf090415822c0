"""From a config to a Runner, in one process or several."""

import atexit
import os
import time

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, init_dist
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from ..backbones import local_class
from ..memory.choose import apply_plan, needs_plan, plan_cuts, predicted_peak

_RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
"""Where the launchers say a process's number."""


def prepare(config: Config, checkpoint: str | None = None, predict: bool = False) -> str:
    """Put cuts in place of ``local_blocks='auto'`` and let the processes of a launcher know each other.

    The first process plans and predicts for all, for plans that differ break DDP. It does so before the processes know
    each other: a detector's losses wait for all processes that there are.

    Args:
        config: Changed in place.
        checkpoint: What is resumed or tested; see :func:`manpp_mm.memory.choose.plan_cuts`.
        predict: Whether to predict what a training step needs.

    Returns:
        The prediction, a line for the log; '' in other processes, and for a config without a local backbone.

    Raises:
        ValueError: See :func:`manpp_mm.memory.choose.plan_cuts`.
        RuntimeError: In other processes: the first one could not plan.
    """
    planned, first = needs_plan(config), first_process(config)
    prediction, error = '', None
    if first:
        try:
            plan_cuts(config, checkpoint)
            prediction = predict_memory(config) if predict else ''
        except Exception as caught:  # the others wait and have to hear of it
            error = caught
    start_processes(config)
    if planned:
        message = [config.manpp_plan.to_dict() if first and not error else None, str(error) if error else None]
        broadcast_object_list(message)
        if not first:
            if message[1] is not None:
                raise RuntimeError(f'the first process could not plan the cuts: {message[1]}')
            apply_plan(config, message[0])
    if error is not None:
        raise error
    return prediction


def first_process(config: Config) -> bool:
    """Whether this is a launcher's first process, or the only one; known before the processes know each other."""
    if config.launcher == 'none':
        return True
    rank = next((os.environ[name] for name in _RANKS if name in os.environ), '0')
    return rank == '0'


def start_processes(config: Config) -> None:
    """Let the processes of a launcher know each other, through gloo without CUDA; one process needs nothing."""
    if config.launcher == 'none' or dist.is_initialized():
        return
    if config.launcher == 'pytorch' and not torch.cuda.is_available():
        # MMEngine's own start-up and its default wrapper both ask for a CUDA device.
        dist.init_process_group('gloo')
        atexit.register(_leave_process_group)
        default = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=config.get('find_unused_parameters', False),
        )
        config.setdefault('model_wrapper_cfg', default)
        config.model_wrapper_cfg.setdefault('device_ids', None)
    else:
        init_dist(config.launcher, **(config.get('env_cfg') or {}).get('dist_cfg', dict(backend='nccl')))


def predict_memory(config: Config) -> str:
    """A line for the log: what a training step of a block-local config is predicted to need; '' for another config."""
    if local_class(config) is None:
        return ''
    try:
        return predicted_peak(config)
    except Exception as error:
        # An op without a CPU kernel, a head that wants other targets, images of no fixed size: whatever it is, a line
        # in the log must not stop a training, and says why it is missing.
        return f'The memory of a step cannot be predicted: {type(error).__name__}: {error}'


def checkpoint_to_resume(config: Config) -> str | None:
    """The checkpoint that a resumed training starts from, None if it starts anew."""
    if not config.get('resume'):
        return None
    return config.get('load_from') or find_latest_checkpoint(config.work_dir)


def build_runner(config: Config) -> Runner:
    """Build the Runner."""
    runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
    if 'manpp_plan' in config:
        runner.logger.info('\n'.join(['Planned cuts', *config.manpp_plan.table]))
    return runner


def _leave_process_group() -> None:
    # A thread of gloo's may still wait for the interpreter's lock, to release the last collective's tensor. If it gets
    # it while the interpreter shuts down, the process aborts after its work is done; a sleep hands the lock over.
    time.sleep(0.5)
    if dist.is_initialized():
        dist.destroy_process_group()
