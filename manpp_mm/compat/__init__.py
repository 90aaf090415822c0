"""Compatibility of MMLab's packages with current PyTorch. Each part does nothing if it is not needed."""

from . import mmpretrain, versions


def apply() -> None:
    """Apply every part; called once by ``import manpp_mm``, before anything imports ``mmcv.ops``."""
    versions.check()
    # These import the packages checked above.
    from . import checkpoint, config_prefix, mmcv_ops

    mmcv_ops.apply()
    checkpoint.apply()
    config_prefix.apply()


__all__ = ['apply', 'mmpretrain']
