"""Plot the block losses and scaling biases of a training run.

The same as ``manpp plot-log``.
"""

from manpp_mm.cli import errors
from manpp_mm.commands.plot_log import main

if __name__ == '__main__':
    errors.run(main)
