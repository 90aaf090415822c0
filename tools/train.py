"""Train a detector, segmentor or classifier.

The same as ``manpp train``.
"""

from manpp_mm.cli import errors
from manpp_mm.commands.train import main

if __name__ == '__main__':
    errors.run(main)
