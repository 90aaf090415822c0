"""Evaluate a checkpoint: box AP for a detector, mIoU for a segmentor.

The same as ``manpp test``.
"""

from manpp_mm.cli import errors
from manpp_mm.commands.test import main

if __name__ == '__main__':
    errors.run(main)
