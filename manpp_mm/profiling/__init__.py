"""What a training step holds and how long it takes, on any device."""

from .live_bytes import LiveBytes
from .step import MODES, Measurement, TrainingStep, measure

__all__ = ['MODES', 'LiveBytes', 'Measurement', 'TrainingStep', 'measure']
