"""Lookup of the optimizer of a module, and of the loss scale in float16 training."""

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn


def trunk_optim_wrapper(optim_wrapper: 'OptimWrapper | OptimWrapperDict', backbone: nn.Module) -> OptimWrapper:
    """Return the one optimizer wrapper that holds the backbone's trainable parameters.

    Raises:
        ValueError: They are spread over several optimizers, or none holds them.
    """
    return optim_wrapper_of(optim_wrapper, backbone, 'the local backbone')


def optim_wrapper_of(optim_wrapper: 'OptimWrapper | OptimWrapperDict', module: nn.Module, name: str) -> OptimWrapper:
    """Return the one optimizer wrapper that holds a module's trainable parameters.

    Args:
        optim_wrapper: The Runner's optimizer wrapper.
        module: The module.
        name: Its name in error messages.

    Raises:
        ValueError: They are spread over several optimizers, or none holds them.
    """
    wrappers = list(optim_wrapper.values()) if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]
    trained = {id(p) for p in module.parameters() if p.requires_grad}
    holders = [w for w in wrappers if any(id(p) in trained for group in w.param_groups for p in group['params'])]
    if len(holders) != 1:
        raise ValueError(
            f'{len(holders)} optimizers of optim_wrapper hold the trainable parameters of {name}, whose gradients are '
            'computed inside forward: a single one must hold them all'
        )
    return holders[0]


def loss_scale(loss_scaler: 'torch.amp.GradScaler | None', device: torch.device) -> 'float | torch.Tensor':
    """Return the factor of a loss scaler, on the device and without synchronization; 1 without a loss scaler."""
    if loss_scaler is None or not loss_scaler.is_enabled():
        return 1.0
    return loss_scaler.scale(torch.ones((), device=device))
