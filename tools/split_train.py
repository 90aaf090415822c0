"""Train the blocks of a model in several processes, each of which trains some of them.

The same as ``manpp split-train``.
"""

from manpp_mm.cli import errors
from manpp_mm.commands.split_train import main

if __name__ == '__main__':
    errors.run(main)
