"""Check a config's data and print what a training would see: images, boxes or pixels a class, what is dropped and why.

The same as ``manpp check``.
"""

from manpp_mm.cli import errors
from manpp_mm.commands.check import main

if __name__ == '__main__':
    errors.run(main)
