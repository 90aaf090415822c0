"""What lets MMLab's packages run on today's PyTorch. Each part does nothing where it is not needed."""

from . import mmpretrain, versions


def apply() -> None:
    """Apply every part; called once by ``import manpp_mm``, before anything imports ``mmcv.ops``."""
    versions.check()
    # These import the packages that are checked.
    from . import checkpoint, config_prefix, mmcv_ops

    mmcv_ops.apply()
    checkpoint.apply()
    config_prefix.apply()


__all__ = ['apply', 'mmpretrain']
