"""What a mixin finds behind itself."""

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:

    class Parent(nn.Module):
        """MMEngine's ``BaseModule``, from which every backbone derives, as a type checker is to see it."""

        def init_weights(self) -> None:
            """Initialise what is inside."""

else:
    Parent = object  # a mixin itself is no module
