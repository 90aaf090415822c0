"""Comparison of variants of a block-local config with the same data, schedule, batch, seed and initial weights."""

from .grid import Cell, read_results, run_grid
from .report import curves_plot, results_table
from .variants import KINDS, parse_variant, variant_config

__all__ = [
    'KINDS',
    'Cell',
    'curves_plot',
    'parse_variant',
    'read_results',
    'results_table',
    'run_grid',
    'variant_config',
]
