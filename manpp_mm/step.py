"""The one object of a training forward."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .local import LocalGradients, LocalStep, deliver


@dataclass
class Step:
    """What one training forward of a model needs and collects while its backbone trains block by block.

    ``LocalLearningHook`` makes it before the model's forward, hands it to the backbone, takes it back after the forward
    and adds :meth:`delivered_losses` to the model's. Outside of a training forward no backbone holds one.

    Attributes:
        targets: The batch's targets as the auxiliary heads' ``loss`` takes them: a list of data samples.
        scale: The loss scaler's factor, 1 without one.
        losses: The local losses, detached, under their logged names: ``block0.loss_cls``.
        gradients: What each local block's gradients wait in until backward.
        shared: What the auxiliary networks derive from the targets for each other.
        ran: Whether the backbone has begun its forward; the local gradients belong to one.
    """

    targets: Any
    scale: 'float | Tensor' = 1.0
    losses: dict[str, Tensor] = field(default_factory=dict)
    gradients: list[LocalGradients] = field(default_factory=list)
    shared: dict[Any, Any] = field(default_factory=dict)
    ran: bool = False

    def add(self, block: int, result: LocalStep) -> None:
        """Keep a block's losses and gradients."""
        self.losses.update({f'block{block}.{name}': value for name, value in result.losses.items()})
        self.gradients.append(result.gradients)

    def delivered_losses(self) -> dict[str, Tensor]:
        """The local losses, one of which carries the delivery of all local gradients. Empty if no block ran locally.

        Call it once, at the end of the model's forward (see :func:`manpp_mm.local.deliver`).
        """
        losses = dict(self.losses)
        if self.gradients:
            carrier = next(name for name in losses if 'loss' in name)
            losses[carrier] = losses[carrier] + deliver(self.gradients)
        return losses
