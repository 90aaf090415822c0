"""The branches of an auxiliary network and the update of its momentum branch."""

import copy
import inspect
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

BRANCHES = ('learnable', 'momentum')


class Branches(nn.Module):
    """Learnable branch B, momentum branch M and scaling bias s of a local block's output x.

    B and M are copies of the first unit of the next local block. B is trained by the local loss. M has no gradient of
    its own (gradient flows through it into ``x``) and follows that unit by :func:`update_momentum_branches`. The
    scaling bias s is one learnable scalar that starts at 1; it is stored as ``delta = s - 1``, so that weight decay
    pulls s towards 1 and not towards 0.

    | branches | scaling | y | method |
    |---|---|---|---|
    | both | None or ``'learnable'`` | ``s * B(x) + (2 - s) * M(x)`` | MAN++, arXiv 2507.16279 |
    | both | a number | the same with s fixed; 1: ``B(x) + M(x)`` | 1: MAN, arXiv 2407.05623 |
    | one | None | ``B(x)`` or ``M(x)`` | |
    | none | None | ``x`` | DGL, ICML 2019 |

    Args:
        unit: The first unit of the next local block. It is copied, not kept; call :meth:`sync` once its weights are
            initialised or loaded.
        branches: Which of ``'learnable'`` and ``'momentum'`` there are.
        scaling: With both branches ``'learnable'`` (as None) or a fixed s in [0, 2].

    Raises:
        ValueError: Other branches, or a scaling that does not fit them.

    Shape:
        ``x`` (N, C, H, W), as the unit takes it; ``y`` as the unit returns it, or ``x`` without branches.
    """

    def __init__(
        self,
        unit: nn.Module,
        branches: Collection[str] = BRANCHES,
        scaling: 'str | float | None' = None,
    ) -> None:
        super().__init__()
        if isinstance(branches, str) or sorted(branches) not in ([], ['learnable'], ['momentum'], sorted(BRANCHES)):
            raise ValueError(f'branches={branches!r} must be a list of {BRANCHES}, of one of them, or empty')
        if scaling is not None and len(branches) < 2:
            raise ValueError(
                f'scaling={scaling!r} weighs two branches against each other: remove it or add the other '
                f'to branches={list(branches)!r}'
            )
        if len(branches) == 2 and scaling is None:
            scaling = 'learnable'
        if scaling not in (None, 'learnable') and not (isinstance(scaling, (int, float)) and 0 <= scaling <= 2):
            raise ValueError(f"scaling={scaling!r} must be 'learnable' or a number in [0, 2]")
        self.learnable = copy.deepcopy(unit) if 'learnable' in branches else None
        self.momentum = copy.deepcopy(unit).requires_grad_(False) if 'momentum' in branches else None
        self.delta = nn.Parameter(torch.zeros(())) if scaling == 'learnable' else None
        self._fixed = scaling

    @property
    def scaling(self) -> 'Tensor | float | None':
        """The scaling bias s, None with fewer than two branches."""
        return self._fixed if self.delta is None else 1 + self.delta

    def forward(self, x: Tensor) -> Tensor:
        outputs = [] if self.learnable is None else [self.learnable(x)]
        if self.momentum is not None:
            with _FrozenBatchNorm():
                outputs.append(self.momentum(x))
        if len(outputs) == 2:
            s = self.scaling
            return s * outputs[0] + (2 - s) * outputs[1]
        return outputs[0] if outputs else x

    def sync(self, unit: nn.Module) -> None:
        """Copy the unit's parameters and buffers into the branches."""
        for branch in (self.learnable, self.momentum):
            if branch is not None:
                branch.load_state_dict(unit.state_dict())


class _FrozenBatchNorm(TorchFunctionMode):
    """Runs BatchNorm that neither trains nor counts as a product and a sum with constants.

    They need their input no more for backward, which torch's own keeps even where the weights have no gradient: for a
    bottleneck four feature maps.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is not F.batch_norm:
            return func(*args, **(kwargs or {}))
        call = inspect.signature(F.batch_norm).bind(*args, **(kwargs or {}))
        call.apply_defaults()
        x, mean, var, weight, bias, training, _, eps = call.arguments.values()
        if training or any(p is not None and p.requires_grad for p in (weight, bias)):
            return func(*call.args)
        scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
        shift = -mean * scale if bias is None else bias - mean * scale
        shape = (1, -1, *(1,) * (x.dim() - 2))
        # As torch's own in half precision: computed in the statistics' type.
        return (x * scale.view(shape)).add_(shift.view(shape)).to(x.dtype)


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
