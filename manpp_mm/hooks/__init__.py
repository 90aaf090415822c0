"""What plugs block-local training into MMEngine's Runner."""

from .atomic_checkpoint_hook import AtomicCheckpointHook
from .finite_loss_hook import FiniteLossHook
from .local_learning_hook import LocalLearningHook
from .local_scalars_hook import LocalScalarsHook
from .momentum_hook import MomentumHook
from .reproducible_hook import ReproducibleHook

__all__ = [
    'AtomicCheckpointHook',
    'FiniteLossHook',
    'LocalLearningHook',
    'LocalScalarsHook',
    'MomentumHook',
    'ReproducibleHook',
]
