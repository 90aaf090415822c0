"""MMPretrain, which is optional: MMDetection and MMSegmentation take ConvNeXt from it."""

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from mmengine.config import Config


@cache
def models() -> ModuleType | None:
    """``mmpretrain.models``, None where it is not there or, with a warning, cannot be imported."""
    if find_spec('mmpretrain') is None:
        return None
    try:
        return import_module('mmpretrain.models')
    except Exception as error:  # one made for other versions of MMLab's packages, or without what it needs
        warnings.warn(
            f'mmpretrain is installed but cannot be imported ({type(error).__name__}: {error}): its local backbones '
            'and LocalConvNeXt are not registered',
            stacklevel=2,
        )
        return None


def complete_loaders(config: Config) -> None:
    """Give a classifier's loaders the settings that MMPretrain's own tools/train.py gives them."""
    if config.get('default_scope') != 'mmpretrain':
        return
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = config.get(key)
        if loader:
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)
            loader.setdefault('collate_fn', dict(type='default_collate'))
