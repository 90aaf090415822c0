"""The state of one training forward."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .local import LocalGradients, LocalStep, deliver
from .random_numbers import seed_everything


@dataclass
class Step:
    """The inputs and results of one training forward of a model whose backbone trains block by block.

    ``LocalLearningHook`` creates it before the model's forward, passes it to the backbone, takes it back after the
    forward and adds :meth:`delivered_losses` to the model's losses. Outside of a training forward, no backbone has one.

    Attributes:
        targets: The batch's targets for the auxiliary heads' ``loss``: a list of data samples.
        scale: The loss scaler's factor, 1 without a loss scaler.
        seed: Numbers from which, together with the block's, the generators are seeded before each block; None leaves
            them.
        losses: The local losses, detached, under their logged names such as ``block0.loss_cls``.
        gradients: The gradients of each local block, held until backward.
        shared: Values derived from the targets that the auxiliary networks share.
        ran: Whether the backbone has started its forward; local gradients belong to exactly one.
    """

    targets: Any
    scale: 'float | Tensor' = 1.0
    seed: tuple[int, ...] | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    gradients: list[LocalGradients] = field(default_factory=list)
    shared: dict[Any, Any] = field(default_factory=dict)
    ran: bool = False

    def start_block(self, block: int) -> None:
        """Seed the generators for a block."""
        if self.seed is not None:
            seed_everything(*self.seed, block)

    def add(self, block: int, result: LocalStep) -> None:
        """Store a block's losses and gradients."""
        self.losses.update({f'block{block}.{name}': value for name, value in result.losses.items()})
        self.gradients.append(result.gradients)

    def delivered_losses(self) -> dict[str, Tensor]:
        """Return the local losses, one of which delivers all local gradients in backward. Empty if no block ran.

        Call it once, at the end of the model's forward (see :func:`manpp_mm.local.deliver`).
        """
        losses = dict(self.losses)
        if self.gradients:
            carrier = next(name for name in losses if 'loss' in name)
            losses[carrier] = losses[carrier] + deliver(self.gradients)
        return losses
