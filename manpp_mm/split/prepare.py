"""The config of one process of a split training, and what cannot be split."""

import copy
import os.path as osp

from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.runner import Runner

from ..backbones.config import checked_local_class
from ..hooks import BlockClipHook, CheckpointModulesHook, EarlyLossHook, GradientSwitchHook, LocalLearningHook
from ..mode import EXACT
from ..registered import named_class
from .split_hook import AwaitedValLoop

_OF_LAST = (CheckpointModulesHook, EarlyLossHook)
"""Hooks that change neck and heads, which only the last process runs."""


def refuse_unsplittable(config: Config) -> None:
    """Refuse a config whose blocks cannot train in several processes.

    Raises:
        ValueError: It is not block-local, uses exact gradients or a lateral gradient, plans its cuts, averages weights
            or wraps the model; the message names the key.
    """
    checked_local_class(config)
    backbone = config.model.backbone
    exact = 'exact gradients need the gradient of every later block, which does not travel between processes'
    if backbone.get('gradient') == EXACT.backbone:
        raise ValueError(f"model.backbone.gradient='exact' cannot be split: {exact}. Set gradient='local', or use DDP")
    if backbone.get('lateral_gradient'):
        raise ValueError(
            'model.backbone.lateral_gradient=True cannot be split: the task trains units of earlier blocks, which '
            'other processes hold. Set it to False'
        )
    if backbone.get('local_blocks') == 'auto':
        raise ValueError(
            "model.backbone.local_blocks='auto' cannot be split: write a config with cuts by tools/fit.py CONFIG "
            '--write FILE'
        )
    kinds = [kind for kind, _ in _hooks(config)]
    if any(issubclass(kind, GradientSwitchHook) for kind in kinds):
        raise ValueError(f'GradientSwitchHook cannot be split: {exact}. Remove it from custom_hooks, or use DDP')
    if not any(issubclass(kind, LocalLearningHook) for kind in kinds):
        raise ValueError("custom_hooks needs dict(type='LocalLearningHook') to train block by block")
    if any(kind.__name__ == 'PreciseBNHook' for kind in kinds):
        raise ValueError('PreciseBNHook cannot be split: it runs the whole model. Remove it from custom_hooks')
    if any(issubclass(kind, EMAHook) for kind in kinds):
        raise ValueError('EMAHook cannot be split: it averages the whole model. Remove it from custom_hooks')
    if config.get('model_wrapper_cfg') is not None or config.get('launcher') not in (None, 'none'):
        raise ValueError(
            'split training starts its own processes and wraps no model: remove --launcher and model_wrapper_cfg'
        )


def clips_by_one_norm(config: Config) -> bool:
    """Return whether a config clips all gradients by one norm."""
    clip = config.optim_wrapper.get('clip_grad')
    return clip is not None and clip.get('type', 'norm') == 'norm'


def process_config(config: Config, number: int, last: int, folder: str) -> Config:
    """Return the config of one process.

    All but the last write no logs and no checkpoints of their own, and do not validate.
    Each block's gradients are clipped by their own norm, because no process knows those of all blocks. Random numbers
    are seeded block by block.

    Args:
        config: The config of the training; not modified.
        number: The number of the process.
        last: The number of the last one.
        folder: A temporary folder, for what MMEngine writes in the other processes.
    """
    config = copy.deepcopy(config)
    hooks = [*(config.get('custom_hooks') or [])]
    if clips_by_one_norm(config):
        clip = config.optim_wrapper.clip_grad
        hooks.append(dict(type=BlockClipHook.__name__, **{key: v for key, v in clip.items() if key != 'type'}))
        config.optim_wrapper.clip_grad = None
    for kind, hook in _hooks(config):
        if issubclass(kind, LocalLearningHook):
            hook['seed_blocks'] = True
    if number < last:
        config.work_dir = osp.join(folder, str(number))
        config.log_level = 'ERROR'
        if config.get('visualizer') is not None:
            config.visualizer.vis_backends = []
        if config.get('val_cfg') is not None:
            config.val_cfg = dict(type=AwaitedValLoop.__name__)
        hooks = [hook for hook in hooks if not _is_of_last(hook, config)]
        checkpoint = (config.get('default_hooks') or {}).get('checkpoint') or {}
        checkpoint.pop('published_keys', None)
    config.custom_hooks = hooks
    return config


def load_nothing(runner: Runner) -> None:
    """Let a runner whose batches are received build its loader without workers; its config is kept, as it is saved."""
    loader = copy.deepcopy(runner._train_dataloader)
    loader.update(num_workers=0, persistent_workers=False)
    for key in ('prefetch_factor', 'timeout', 'multiprocessing_context'):
        loader.pop(key, None)
    runner._train_dataloader = loader


def _is_of_last(hook: dict, config: Config) -> bool:
    kind = named_class(hook['type'], 'hook', config.get('default_scope'))
    return kind is not None and issubclass(kind, _OF_LAST)


def _hooks(config: Config) -> list[tuple[type, dict]]:
    entries = [*(config.get('custom_hooks') or []), *filter(None, (config.get('default_hooks') or {}).values())]
    found = [(named_class(entry['type'], 'hook', config.get('default_scope')), entry) for entry in entries]
    return [(kind, entry) for kind, entry in found if kind is not None]
