"""Hooks that add block-local training to MMEngine's Runner."""

from .atomic_checkpoint_hook import AtomicCheckpointHook
from .block_clip_hook import BlockClipHook
from .checkpoint_modules_hook import CheckpointModulesHook
from .early_loss_hook import EarlyLossHook
from .finite_loss_hook import FiniteLossHook
from .gradient_switch_hook import GradientSwitchHook
from .local_learning_hook import LocalLearningHook
from .local_scalars_hook import LocalScalarsHook
from .momentum_hook import MomentumHook
from .reproducible_hook import ReproducibleHook

__all__ = [
    'AtomicCheckpointHook',
    'BlockClipHook',
    'CheckpointModulesHook',
    'EarlyLossHook',
    'FiniteLossHook',
    'GradientSwitchHook',
    'LocalLearningHook',
    'LocalScalarsHook',
    'MomentumHook',
    'ReproducibleHook',
]
