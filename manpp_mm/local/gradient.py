"""Gradients of a local block: computed in forward, delivered in backward.

Summing detached local losses into one backward is correct, but keeps every block's graph alive until then. Calling
``loss.backward()`` inside forward frees the graphs, but bypasses the wrappers of the model: DDP reduces those gradients
only with ``find_unused_parameters=True``, and loss scaling and accumulation do not see them. Here, the gradients are
computed inside forward with :func:`torch.autograd.grad`, which frees the block's graph. They reach ``Parameter.grad``
in the ordinary backward, through a custom function whose inputs are the parameters.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Losses = Mapping[str, 'Tensor | Sequence[Tensor]']


class LocalGradients:
    """Gradients of local losses, kept until backward.

    Args:
        parameters: The parameters (and features, for :func:`early_loss`) that received a gradient.
        gradients: One gradient for each of them, multiplied by ``scale``.
        scale: The factor of the local loss, a number or a 0-dim tensor.
        dtype: Floating-point type of the local loss and of the delivered scalar, so that the factor from backward
            loses no precision.
    """

    def __init__(
        self, parameters: list[Tensor], gradients: list[Tensor], scale: 'float | Tensor', dtype: torch.dtype
    ) -> None:
        self.parameters = parameters
        self.gradients = gradients
        self.scale = scale
        self.dtype = dtype


class BlockOutput(NamedTuple):
    """The output of a local block."""

    x: Tensor
    """The input of the next block."""
    features: dict[int, Tensor]
    """Feature maps for neck and heads, by the stage that ends with them."""


@dataclass
class LocalStep:
    """The result of :func:`local_step`."""

    output: BlockOutput
    """The block's output, detached."""
    losses: dict[str, Tensor]
    """The losses, reduced to detached scalars, under the head's own keys, including keys without ``'loss'`` such as an
    accuracy."""
    gradients: LocalGradients
    """The gradients to pass to :func:`deliver`."""


def reduce_losses(losses: Losses) -> dict[str, Tensor]:
    """Reduce each entry to a scalar as ``mmengine.model.BaseModel.parse_losses`` does: mean, or sum of means."""
    reduced = {}
    for name, value in losses.items():
        if isinstance(value, Tensor):
            reduced[name] = _mean(value)
        elif isinstance(value, Sequence) and len(value) and all(isinstance(item, Tensor) for item in value):
            reduced[name] = _sum([_mean(item) for item in value])
        else:
            raise TypeError(f'a local loss must be a tensor or a list of tensors, but {name!r} is {type(value)}')
    return reduced


def _mean(value: Tensor) -> Tensor:
    return value.mean() if value.dim() else value


def _sum(values: Sequence[Tensor]) -> Tensor:
    """Add tensors without the addition to zero with which ``sum`` starts."""
    return reduce(torch.add, values)


def local_step(
    block: Callable[[Tensor], BlockOutput],
    local_loss: Callable[[Tensor], Losses],
    x: Tensor,
    parameters: Iterable[nn.Parameter],
    scale: 'float | Tensor' = 1.0,
) -> LocalStep:
    """Run one local block with its auxiliary network and compute its gradients immediately.

    This computes ``y = block(sg(x)).x``, the local loss ``L = sum of local_loss(y) entries whose key contains 'loss'``
    and ``dL / dp`` for each of ``parameters``. Then it frees the graph: afterwards, no tensor of the block's graph is
    alive. MAN++ (arXiv 2507.16279) trains its blocks with these gradients.

    Args:
        block: Maps ``x`` to its output.
        local_loss: Maps the input of the next block to a dict of losses: scalars, tensors or lists of tensors.
        x: The block's input, of any shape; it is detached here.
        parameters: The parameters of block and auxiliary network. Frozen ones are ignored; those that the loss does
            not reach receive no gradient.
        scale: Factor of the local loss in the gradient computation, from a loss scaler for float16; it is divided out
            in backward.

    Returns:
        The detached output, detached losses and the gradients to deliver.

    Raises:
        RuntimeError: No key contains ``'loss'``, the loss depends on no trainable parameter, or a parameter has a
            tensor hook, which would run twice.
    """
    trainable = list(dict.fromkeys(p for p in parameters if p.requires_grad))
    output = block(x.detach())
    losses = reduce_losses(local_loss(output.x))
    gradients = _taken(losses, trainable, trainable, scale)
    if not gradients.parameters:
        raise RuntimeError(
            f'the local loss ({", ".join(losses)}) depends on no trainable parameter of its block or auxiliary network'
        )
    return LocalStep(
        output=BlockOutput(output.x.detach(), {stage: map_.detach() for stage, map_ in output.features.items()}),
        losses={name: value.detach() for name, value in losses.items()},
        gradients=gradients,
    )


def early_loss(
    head: Callable[[tuple[Tensor, ...]], tuple[Losses, Any]],
    features: Sequence[Tensor],
    parameters: Iterable[nn.Parameter],
    scale: 'float | Tensor' = 1.0,
) -> tuple[dict[str, Tensor], Any]:
    """Run a head and turn its loss into gradients of features and parameters immediately.

    The head's graph is freed before this returns. In backward, the kept gradients continue into the modules that
    computed the features. The gradients are those of the ordinary backward.

    Args:
        head: Maps the features to its losses and any other result without gradient.
        features: The input of the head, of any shapes.
        parameters: The parameters of the head.
        scale: As for :func:`local_step`.

    Returns:
        The losses, reduced to scalars, one of which delivers the gradients, and the other result of the head.

    Raises:
        RuntimeError: No key of the losses contains ``'loss'``, or a parameter has a tensor hook.
    """
    leaves = tuple(feature.detach().requires_grad_(feature.requires_grad) for feature in features)
    found, rest = head(leaves)
    losses = reduce_losses(found)
    trainable = [p for p in parameters if p.requires_grad]
    inputs = [leaf for leaf in leaves if leaf.requires_grad] + trainable
    owners = [feature for feature in features if feature.requires_grad] + trainable
    gradients = _taken(losses, inputs, owners, scale)
    losses = {name: value.detach() for name, value in losses.items()}
    if gradients.parameters:
        carrier = next(name for name in losses if 'loss' in name)
        losses[carrier] = losses[carrier] + deliver([gradients])
    return losses, rest


def _taken(
    losses: dict[str, Tensor], inputs: Sequence[Tensor], owners: Sequence[Tensor], scale: 'float | Tensor'
) -> LocalGradients:
    """Return the gradients of the sum of losses with respect to ``inputs``, to be delivered to ``owners``."""
    for owner in owners:
        if owner.is_leaf and owner._backward_hooks:
            raise RuntimeError(
                f'a parameter of shape {tuple(owner.shape)} in a local block or a head of EarlyLossHook has a tensor '
                'hook (Tensor.register_hook), which would run twice: when the gradient is computed and when it is '
                'delivered. Use Tensor.register_post_accumulate_grad_hook instead.'
            )
    terms = [value for name, value in losses.items() if 'loss' in name]
    if not terms:
        raise RuntimeError(f"a local loss needs a key that contains 'loss', got {list(losses)}")
    total = _sum(terms)
    received = []
    if total.requires_grad and inputs:
        with torch.autocast(total.device.type, enabled=False):
            scaled = total if isinstance(scale, float) and scale == 1 else total * scale
            gradients = torch.autograd.grad(scaled, inputs, allow_unused=True)
        received = _owned([(owner, g) for owner, g in zip(owners, gradients, strict=True) if g is not None])
    return LocalGradients(
        parameters=[owner for owner, _ in received],
        gradients=[g for _, g in received],
        scale=scale,
        dtype=torch.promote_types(total.dtype, torch.float32),
    )


def _owned(received: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Give each gradient its own memory, so that it can be scaled in place; ``a + b`` passes one tensor to both."""
    seen: set[int] = set()
    owned = []
    for parameter, gradient in received:
        storage = gradient.untyped_storage().data_ptr()
        if storage in seen or 0 in gradient.stride():
            gradient = gradient.clone(memory_format=torch.contiguous_format)
        seen.add(storage)
        owned.append((parameter, gradient))
    return owned


def deliver(steps: Sequence[LocalGradients]) -> Tensor:
    """Return a scalar that is always zero and whose backward passes the kept gradients to their parameters.

    Added to the model's loss, it makes local learning look like any other loss to DDP, gradient accumulation, loss
    scaling and clipping: the gradient that reaches the scalar multiplies the kept gradients. Call it at the end of the
    model's forward: autograd runs the newest node first, so DDP reduces these gradients while those of neck and heads
    are still being computed.

    Args:
        steps: The gradients of the local blocks of one forward; each is empty afterwards.

    Returns:
        A 0-dim tensor. Running backward through it twice raises a ``RuntimeError``.
    """
    parameters = [p for step in steps for p in step.parameters]
    groups = [(step.gradients, step.scale) for step in steps]
    dtype = steps[0].dtype
    for step in steps:
        dtype = torch.promote_types(dtype, step.dtype)
        step.parameters, step.gradients = [], []
    return _Delivery.apply(groups, dtype, *parameters)


def deliver_nothing(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return a scalar that is always zero and whose backward reaches the parameters without giving them a gradient.

    DDP waits for every parameter of the model. Added to the loss, this includes parameters that do not learn in this
    forward. Without DDP, their ``.grad`` stays None; with DDP, it becomes zero.
    """
    return _Nothing.apply(*parameters)


class _Nothing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.number = len(parameters)
        return torch.zeros((), device=parameters[0].device)

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple:
        return (None,) * ctx.number


class _Delivery(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, groups: list, dtype: torch.dtype, *parameters: Tensor) -> Tensor:
        ctx.groups = groups
        return torch.zeros((), dtype=dtype, device=parameters[0].device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple:
        if ctx.groups is None:
            raise RuntimeError(
                'backward ran a second time through the delivery of local gradients, which works only once. '
                'Run forward again, or accumulate with the optimizer wrapper (accumulative_counts).'
            )
        # Keep no reference, or Parameter.grad would be a copy; parse_losses keeps this node until after the step.
        groups, ctx.groups = ctx.groups, None
        gradients = []
        for kept, scale in groups:
            torch._foreach_mul_(kept, factor / scale)
            gradients += kept
        return None, None, *gradients
