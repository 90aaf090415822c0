"""The branches of a MAN++ auxiliary network and the update of its momentum branch."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .checkpoint import checkpointed


class Branches(nn.Module):
    """Learnable branch, momentum branch and scaling bias: ``y = s * B(x) + (2 - s) * M(x)``.

    B and M are copies of the first unit of the next local block. B is trained by the local loss. M has no gradient of
    its own (gradient flows through it into ``x``) and follows that unit by :func:`update_momentum_branches`. The
    scaling bias s is one learnable scalar that starts at 1; it is stored as ``delta = s - 1``, so that weight decay
    pulls s towards 1 and not towards 0. Source: MAN++, arXiv 2507.16279; with s = 1 it is MAN, arXiv 2407.05623.

    Args:
        unit: The first unit of the next local block. It is copied, not kept; call :meth:`sync` once its weights are
            initialised or loaded.
        with_cp: Whether to checkpoint each branch.

    Shape:
        ``x`` (N, C, H, W), as the unit takes it; ``y`` as the unit returns it.
    """

    def __init__(self, unit: nn.Module, with_cp: bool = False) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.learnable = copy.deepcopy(unit)
        self.momentum = copy.deepcopy(unit).requires_grad_(False)
        self.delta = nn.Parameter(torch.zeros(()))

    @property
    def scaling(self) -> Tensor:
        """The scaling bias s."""
        return 1 + self.delta

    def forward(self, x: Tensor) -> Tensor:
        s = self.scaling
        if self.with_cp:
            return s * checkpointed(self.learnable, x) + (2 - s) * checkpointed(self.momentum, x)
        return s * self.learnable(x) + (2 - s) * self.momentum(x)

    def sync(self, unit: nn.Module) -> None:
        """Copy the unit's parameters and buffers into both branches."""
        self.learnable.load_state_dict(unit.state_dict())
        self.momentum.load_state_dict(unit.state_dict())


@torch.no_grad()
def update_momentum_branches(
    pairs: Iterable[tuple[nn.Module, nn.Module]], momentum: float, found_inf: Tensor | None = None
) -> None:
    """Let momentum branches follow their sources: ``gamma <- m * gamma + (1 - m) * theta``.

    Parameters are averaged, buffers (BatchNorm statistics) are not. Source: MAN, arXiv 2407.05623.

    Args:
        pairs: (momentum branch, source unit) pairs.
        momentum: m, 0.995 in MAN++.
        found_inf: A 0-dim tensor, 1 where the optimizer step was skipped for an infinite gradient; the branches then
            stay as they are. Read on the device, without a synchronisation.
    """
    gamma: list[Tensor] = []
    theta: list[Tensor] = []
    for branch, source in pairs:
        gamma += branch.parameters()
        theta += source.parameters()
    if not gamma:
        return
    if found_inf is None:
        torch._foreach_lerp_(gamma, theta, 1 - momentum)
    else:
        change = torch._foreach_sub(theta, gamma)
        torch._foreach_mul_(change, (1 - momentum) * (1 - found_inf))
        torch._foreach_add_(gamma, change)
