"""Checks of configs, data and checkpoints before the first step."""

from .everything import Report, check_everything
from .resume import check_resume

__all__ = ['Report', 'check_everything', 'check_resume']
