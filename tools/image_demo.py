"""Run a checkpoint on an image or a folder; write painted images, label maps (segmentation) and a JSON file.

The same as ``manpp infer``.
"""

from manpp_mm.cli import errors
from manpp_mm.commands.infer import main

if __name__ == '__main__':
    errors.run(main)
