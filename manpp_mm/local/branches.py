"""The branches of an auxiliary network and the update of its momentum branch."""

import copy
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
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
        ``x`` as the unit takes it, (N, C, H, W) in a ResNet; ``y`` as the unit returns it, or ``x`` without branches.
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
            with _LeanBatchNorm():
                outputs.append(self.momentum(x))
        if len(outputs) == 2:
            return _Mixture.apply(*outputs, self.scaling)
        return outputs[0] if outputs else x

    def sync(self, unit: nn.Module) -> None:
        """Copy the unit's parameters and buffers into the branches."""
        for branch in (self.learnable, self.momentum):
            if branch is not None:
                branch.load_state_dict(unit.state_dict())


class _Mixture(torch.autograd.Function):
    """``s * b + (2 - s) * m`` in half the operators that autograd would take, and as many tensors kept."""

    @staticmethod
    def forward(ctx: Any, b: Tensor, m: Tensor, s: 'Tensor | float') -> Tensor:
        rest = 2 - s
        ctx.fixed = None if isinstance(s, Tensor) else (s, rest)
        ctx.save_for_backward(b, m, *((s, rest) if ctx.fixed is None else ()))
        return (b * s).add_(m * rest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        b, m, *scales = ctx.saved_tensors
        s, rest = ctx.fixed or scales
        to_s = None if ctx.fixed else (b - m).mul_(gradient).sum(dtype=s.dtype)
        return gradient * s, gradient * rest, to_s


class _LeanBatchNorm(TorchFunctionMode):
    """Runs BatchNorm that neither trains nor counts without keeping its input.

    Torch's own keeps it even where the weights have no gradient: for a bottleneck four feature maps.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return (_lean_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def _lean_batch_norm(
    input: Tensor,
    running_mean: 'Tensor | None',
    running_var: 'Tensor | None',
    weight: 'Tensor | None' = None,
    bias: 'Tensor | None' = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or any(p is not None and p.requires_grad for p in (weight, bias)):
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return _FixedBatchNorm.apply(input, running_mean, running_var, weight, bias, eps)


class _FixedBatchNorm(torch.autograd.Function):
    """BatchNorm in evaluation, with a gradient for its input alone: torch's own operators, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, var: Tensor, weight: Any, bias: Any, eps: float) -> Tensor:
        ctx.save_for_backward(mean, var, weight)
        ctx.eps = eps
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        mean, var, weight = ctx.saved_tensors
        none = mean[:0]  # there are no statistics of the batch
        # In evaluation the gradient does not depend on the input, whose shape alone is looked at.
        gradient, _, _ = torch.ops.aten.native_batch_norm_backward(
            gradient, gradient, weight, mean, var, none, none, False, ctx.eps, [True, False, False]
        )
        return gradient, None, None, None, None, None


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
