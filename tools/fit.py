"""Show the memory that each way to train a config needs, and write the config that fits.

The same as ``manpp fit``.
"""

from manpp_mm.cli import errors
from manpp_mm.commands.fit import main

if __name__ == '__main__':
    errors.run(main)
