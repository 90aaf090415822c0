"""The branches of an auxiliary network and the update of its momentum branch."""

import copy
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

BRANCHES = ('learnable', 'momentum')
STARTS = ('unit', 'independent')


class Branches(nn.Module):
    """Learnable branch B, momentum branch M and scaling bias s of a local block's output x.

    B and M are copies of the first unit of the next local block, or of several later units in sequence. The local loss
    trains B. M receives no gradient (gradient flows through it into ``x``) and follows its units by
    :func:`update_momentum_branches`. The scaling bias s is one learnable scalar that starts at 1. It is stored as
    ``delta = s - 1``, so weight decay pulls s towards 1 and not towards 0.

    The output ``y`` depends on the branches:

    - both, scaling None or ``'learnable'``: ``s * B(x) + (2 - s) * M(x)`` (MAN++, arXiv 2507.16279)
    - both, scaling a number: the same with s fixed; ``B(x) + M(x)`` for 1 (MAN, arXiv 2407.05623)
    - one: ``B(x)`` or ``M(x)``
    - none: ``x`` (DGL, ICML 2019)

    Args:
        units: The first unit of the next local block, or several units in sequence. They are copied, not kept; call
            :meth:`sync` after their weights are initialized or loaded.
        branches: Which of ``'learnable'`` and ``'momentum'`` to build.
        scaling: With both branches: ``'learnable'`` (same as None) or a fixed s in [0, 2].
        start: ``'unit'``: both branches start as copies of the units. ``'independent'``: each branch is initialized
            independently, by its layers' ``reset_parameters`` and the model's ``init_cfg``. This matches the authors'
            release, where B, M and the unit start as three networks even if the trunk is pretrained. Parameters that
            no layer resets, such as a table of relative positions, start as copies.
        scaling_decays_to: The value that weight decay pulls a learnable s towards: 1, or 0 as in the authors' release,
            which stores s itself.

    Raises:
        ValueError: Branches or start are unknown, or the scaling does not fit the branches.

    Shape:
        ``x`` is the input of the unit, (N, C, H, W) in a ResNet; ``y`` is the output of the unit, or ``x`` without
        branches.
    """

    def __init__(
        self,
        units: 'nn.Module | Sequence[nn.Module]',
        branches: Collection[str] = BRANCHES,
        scaling: 'str | float | None' = None,
        start: str = 'unit',
        scaling_decays_to: int = 1,
    ) -> None:
        super().__init__()
        if isinstance(branches, str) or sorted(branches) not in ([], ['learnable'], ['momentum'], sorted(BRANCHES)):
            raise ValueError(f'branches={branches!r} must be a list of {BRANCHES}, of one of them, or empty')
        if scaling is not None and len(branches) < 2:
            raise ValueError(
                f'scaling={scaling!r} needs two branches: remove it, or add the other one '
                f'to branches={list(branches)!r}'
            )
        if len(branches) == 2 and scaling is None:
            scaling = 'learnable'
        if scaling not in (None, 'learnable') and not (isinstance(scaling, (int, float)) and 0 <= scaling <= 2):
            raise ValueError(f"scaling={scaling!r} must be 'learnable' or a number in [0, 2]")
        if start not in STARTS:
            raise ValueError(f'start={start!r} must be {" or ".join(map(repr, STARTS))}')
        if scaling_decays_to not in (0, 1) or (scaling_decays_to == 0 and scaling != 'learnable'):
            raise ValueError(
                f'scaling_decays_to={scaling_decays_to!r} must be 1, or 0 with two branches and a learnable scaling'
            )
        copied = _independent if start == 'independent' else _copied
        self.learnable = copied(units) if 'learnable' in branches else None
        self.momentum = copied(units).requires_grad_(False) if 'momentum' in branches else None
        self.delta: nn.Parameter | None = None
        self.scale: nn.Parameter | None = None
        if scaling == 'learnable' and scaling_decays_to:
            self.delta = nn.Parameter(torch.zeros(()))
        elif scaling == 'learnable':
            self.scale = nn.Parameter(torch.ones(()))
        self._fixed = None if isinstance(scaling, str) else scaling
        self._start = start

    @property
    def any(self) -> bool:
        """Whether there is a branch."""
        return self.learnable is not None or self.momentum is not None

    @property
    def scaling(self) -> 'Tensor | float | None':
        """The scaling bias s, None with fewer than two branches."""
        if self.delta is not None:
            return 1 + self.delta
        return self._fixed if self.scale is None else self.scale

    def forward(self, x: Tensor) -> Tensor:
        outputs = [] if self.learnable is None else [self.learnable(x)]
        if self.momentum is not None:
            with _LeanBatchNorm():
                outputs.append(self.momentum(x))
        if len(outputs) == 2:
            return _Mixture.apply(*outputs, self.scaling)
        return outputs[0] if outputs else x

    def sync(self, units: 'nn.Module | Sequence[nn.Module]') -> bool:
        """Copy the units' parameters and buffers into the branches, unless they are independent.

        Returns:
            Whether anything was copied.
        """
        if self._start == 'independent':
            return False
        found = [branch for branch in (self.learnable, self.momentum) if branch is not None]
        for branch in found:
            for own, unit in zip(_row(branch), _row(units), strict=True):
                own.load_state_dict(unit.state_dict())
        return bool(found)

    def momentum_pairs(self, units: 'nn.Module | Sequence[nn.Module]') -> list[tuple[nn.Module, nn.Module]]:
        """Return pairs (copy in the momentum branch, unit that it follows); empty without a momentum branch."""
        return [] if self.momentum is None else list(zip(_row(self.momentum), _row(units), strict=True))


class _Row(nn.Sequential):
    """Copies of several units in sequence."""


def _row(units: 'nn.Module | Sequence[nn.Module]') -> list[nn.Module]:
    return [units] if isinstance(units, nn.Module) and not isinstance(units, _Row) else list(units)


def _copied(units: 'nn.Module | Sequence[nn.Module]') -> nn.Module:
    """Copy units; the copy of a single unit keeps its parameter names, several are numbered."""
    copies = [copy.deepcopy(unit) for unit in _row(units)]
    return copies[0] if len(copies) == 1 else _Row(*copies)


def _independent(units: 'nn.Module | Sequence[nn.Module]') -> nn.Module:
    """Copy units and reinitialize their layers. This happens in model building, so all DDP processes get the same."""
    copied = _copied(units)
    for layer in copied.modules():
        reset = getattr(
            layer, 'reset_parameters', getattr(layer, '_reset_parameters', None)
        )  # attention has the latter
        if reset is not None:
            reset()
    return copied


class _Mixture(torch.autograd.Function):
    """``s * b + (2 - s) * m`` with half the operators of plain autograd, and as many saved tensors."""

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
    """Runs BatchNorm in evaluation mode with frozen weights without saving its input.

    Torch's own BatchNorm saves it even if the weights need no gradient: four feature maps for a bottleneck.
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
    """BatchNorm in evaluation mode with a gradient only for its input, by torch's own operators."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, var: Tensor, weight: Any, bias: Any, eps: float) -> Tensor:
        ctx.save_for_backward(mean, var, weight)
        ctx.eps = eps
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        mean, var, weight = ctx.saved_tensors
        none = mean[:0]  # there are no batch statistics
        # In evaluation mode, the gradient does not depend on the values of the input, only on its shape.
        gradient, _, _ = torch.ops.aten.native_batch_norm_backward(
            gradient, gradient, weight, mean, var, none, none, False, ctx.eps, [True, False, False]
        )
        return gradient, None, None, None, None, None


@torch.no_grad()
def update_momentum_branches(
    pairs: Iterable[tuple[nn.Module, nn.Module]], momentum: float, found_inf: Tensor | None = None
) -> None:
    """Update momentum branches from their sources: ``gamma <- m * gamma + (1 - m) * theta``.

    Parameters are averaged, buffers (BatchNorm statistics) are not. Source: MAN, arXiv 2407.05623.

    Args:
        pairs: (momentum branch, source unit) pairs.
        momentum: m, 0.995 in MAN++.
        found_inf: A 0-dim tensor, 1 if the optimizer step was skipped because of an infinite gradient; the branches
            then do not change. It is read on the device, without synchronization.
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
