"""Train variants of a block-local config under equal conditions; write a table, curves and a JSON file per run.

The same as ``manpp compare``.
"""

from manpp_mm.cli import errors
from manpp_mm.commands.compare import main

if __name__ == '__main__':
    errors.run(main)
