"""The learning rule of block-local training. It imports only torch."""

from .branches import Branches, update_momentum_branches
from .checkpoint import checkpointed, rerun
from .gradient import BlockOutput, LocalGradients, LocalStep, deliver, deliver_nothing, early_loss, local_step
from .partition import Cut, partition

__all__ = [
    'BlockOutput',
    'Branches',
    'Cut',
    'LocalGradients',
    'LocalStep',
    'checkpointed',
    'deliver',
    'deliver_nothing',
    'early_loss',
    'local_step',
    'partition',
    'rerun',
    'update_momentum_branches',
]
