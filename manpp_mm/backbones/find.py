"""Lookup of the local backbone of a model."""

from mmengine.model import BaseModel, is_model_wrapper
from torch import nn

from .local_backbone import LocalBackbone


def unwrapped(model: nn.Module) -> BaseModel:
    """Return the model inside a wrapper (DDP), or the model itself."""
    return model.module if is_model_wrapper(model) else model


def find_local_backbone(model: nn.Module) -> LocalBackbone:
    """Return ``model.backbone``, the only local backbone of an unwrapped detector or segmentor.

    Raises:
        ValueError: There is none, or it is in a place that the targets of the model's forward do not reach, such as a
            semi-supervised teacher and student.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, LocalBackbone)}
    if not found:
        raise ValueError(
            f'{type(model).__name__} has no local backbone, but LocalLearningHook or MomentumHook is in custom_hooks. '
            "Set model.backbone.type to a local backbone, such as 'LocalResNet', or remove the hooks."
        )
    if list(found) != ['backbone']:
        raise ValueError(
            f'{type(model).__name__} has its local backbone at {", ".join(map(repr, found))} and calls the losses of '
            'the wrapped models directly, bypassing the forward that passes the targets: it cannot be trained block by '
            "block. Use the plain backbone (type='ResNet') in it."
        )
    return found['backbone']
