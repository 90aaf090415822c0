"""Check a config's data and summarize what training would use: images, boxes or pixels per class, and what is dropped.

The same as ``manpp check``.
"""

from manpp_mm.cli import errors
from manpp_mm.commands.check import main

if __name__ == '__main__':
    errors.run(main)
