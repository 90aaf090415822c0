"""Predict for an image or a folder of images: painted images, a segmentor's label maps, and a JSON file.

The same as ``manpp infer``.
"""

from manpp_mm.cli import errors
from manpp_mm.commands.infer import main

if __name__ == '__main__':
    errors.run(main)
