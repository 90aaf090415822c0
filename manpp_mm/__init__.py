"""MAN++ block-local training for MMDetection, MMSegmentation and MMPretrain.

``import manpp_mm`` (or ``custom_imports = dict(imports=['manpp_mm'])`` in a config) registers the local backbones in
the packages that are installed and the hooks in MMEngine.
"""

import os
from importlib.util import find_spec

# OpenMP reads it when torch is imported. Waiting threads that spin for long slow a step down on a busy CPU; those that
# never spin (OMP_WAIT_POLICY=passive) make it a quarter slower on an idle one.
if not {'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'} & os.environ.keys():
    os.environ['GOMP_SPINCOUNT'] = '1000'

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
