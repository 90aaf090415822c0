"""Measure memory, work, operators and time of one forward and backward pass, end-to-end and block-local.

The same as ``manpp benchmark``.
"""

from manpp_mm.cli import errors
from manpp_mm.commands.benchmark import main

if __name__ == '__main__':
    errors.run(main)
