"""What plugs block-local training into MMEngine's Runner."""

from .local_learning_hook import LocalLearningHook
from .momentum_hook import MomentumHook

__all__ = ['LocalLearningHook', 'MomentumHook']
