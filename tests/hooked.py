"""What the tests of CheckpointModulesHook and EarlyLossHook share."""

from helpers import detector_config
from mmengine.config import Config
from torch import nn

from manpp_mm.hooks.replaced_method import ReplacedMethod


def two_stage() -> Config:
    """The small Faster R-CNN with live BatchNorm in the neck."""
    config = detector_config()
    config.model.neck.norm_cfg = dict(type='BN')
    return config


def replaced(model: nn.Module) -> set[str]:
    """The modules of which a method is replaced."""
    return {
        name
        for name, module in model.named_modules()
        if any(isinstance(value, ReplacedMethod) for value in vars(module).values())
    }
