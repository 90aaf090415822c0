"""Write the plain model from a checkpoint: no auxiliary networks, no optimizer, a config without manpp_mm.

The same as ``manpp publish``.
"""

from manpp_mm.cli import errors
from manpp_mm.commands.publish import main

if __name__ == '__main__':
    errors.run(main)
