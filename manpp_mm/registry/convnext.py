"""MMPretrain's ConvNeXt, which MMDetection's and MMSegmentation's configs use; None where MMPretrain is not there."""

import warnings
from importlib.util import find_spec

__all__ = ['ConvNeXt']

ConvNeXt = None
if find_spec('mmpretrain') is not None:
    try:
        from mmpretrain.models import ConvNeXt
    except Exception as error:  # one made for other versions of MMLab's packages
        warnings.warn(
            f'mmpretrain is installed but cannot be imported ({error}): LocalConvNeXt is not registered', stacklevel=2
        )
