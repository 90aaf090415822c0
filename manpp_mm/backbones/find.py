"""Where a model holds its local backbone."""

from mmengine.model import BaseModel, is_model_wrapper
from torch import nn

from .local_backbone import LocalBackbone


def unwrapped(model: nn.Module) -> BaseModel:
    """Return the model inside a wrapper (DDP), or the model itself."""
    return model.module if is_model_wrapper(model) else model


def find_local_backbone(model: nn.Module) -> LocalBackbone:
    """Return ``model.backbone``, the one local backbone of a detector or segmentor without wrapper.

    Raises:
        ValueError: There is none, or it sits where the model's own forward does not pass the batch's targets by it
            (a semi-supervised teacher and student, say).
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, LocalBackbone)}
    if not found:
        raise ValueError(
            f'{type(model).__name__} has no local backbone, but LocalLearningHook or MomentumHook is in custom_hooks. '
            "Set model.backbone.type to a local backbone, 'LocalResNet' say, or remove the hooks."
        )
    if list(found) != ['backbone']:
        raise ValueError(
            f'{type(model).__name__} holds its local backbone as {", ".join(map(repr, found))} and calls the wrapped '
            "models' losses itself, past the forward that hands over the targets: it cannot be trained block by "
            "block. Use the plain backbone (type='ResNet') inside it."
        )
    return found['backbone']
