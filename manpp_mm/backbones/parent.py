"""The base class of a mixin for type checkers."""

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:

    class Parent(nn.Module):
        """Stands for MMEngine's ``BaseModule``, from which every backbone derives, in type checking."""

        def init_weights(self) -> None:
            """Initialize the weights."""

else:
    Parent = object  # a mixin itself is not a module
