"""Train variants of a block-local config on equal terms and compare them: a table, curves, a JSON file each run.

The same as ``manpp compare``.
"""

from manpp_mm.cli import errors
from manpp_mm.commands.compare import main

if __name__ == '__main__':
    errors.run(main)
