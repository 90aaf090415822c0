"""Memory and time of a training step on any device, and planning of cuts that fit a budget."""

from ..mode import MODES, Mode
from .counts import StepCounts
from .live_bytes import Held, LiveBytes, PeakRecorder
from .measure import Measurement, measure
from .report import peak_table, plot_modes, plot_sweep, table
from .sweep import variants
from .training_log import plot_training, read_scalars
from .training_step import TrainingStep

__all__ = [
    'MODES',
    'Held',
    'LiveBytes',
    'Measurement',
    'Mode',
    'PeakRecorder',
    'StepCounts',
    'TrainingStep',
    'measure',
    'peak_table',
    'plot_modes',
    'plot_sweep',
    'plot_training',
    'read_scalars',
    'table',
    'variants',
]
