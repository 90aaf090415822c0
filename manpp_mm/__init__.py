"""MAN++ block-local training for MMDetection, MMSegmentation and MMPretrain.

``import manpp_mm`` (or ``custom_imports = dict(imports=['manpp_mm'])`` in a config) registers the local backbones in
the packages that are installed and the hooks in MMEngine.
"""

import os
from importlib.util import find_spec

# OpenMP reads this when torch is imported. Threads that spin while waiting make a step on a busy CPU ten times slower.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

from . import compat

compat.apply()

from . import hooks  # noqa: E402

if find_spec('mmdet') is not None:
    from .registry import mmdet  # noqa: F401
if find_spec('mmseg') is not None:
    from .registry import mmseg  # noqa: F401
if compat.mmpretrain.models() is not None:
    from .registry import mmpretrain  # noqa: F401

from .memory.fit import fit  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = ['__version__', 'fit', 'hooks']
