"""Optional support of MMPretrain, from which MMDetection and MMSegmentation use ConvNeXt."""

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from mmengine.config import Config


@cache
def models() -> ModuleType | None:
    """Return ``mmpretrain.models``; None if it is not installed or, with a warning, cannot be imported."""
    if find_spec('mmpretrain') is None:
        return None
    try:
        return import_module('mmpretrain.models')
    except Exception as error:  # other versions of MMLab's packages, or missing dependencies
        warnings.warn(
            f'mmpretrain is installed but cannot be imported ({type(error).__name__}: {error}): its local backbones '
            'and LocalConvNeXt are not registered',
            stacklevel=2,
        )
        return None


def complete_loaders(config: Config) -> None:
    """Give a classifier's loaders the settings of MMPretrain's own tools/train.py."""
    if config.get('default_scope') != 'mmpretrain':
        return
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = config.get(key)
        if loader:
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)
            loader.setdefault('collate_fn', dict(type='default_collate'))
