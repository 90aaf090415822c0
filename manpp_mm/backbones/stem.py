"""A stem as a separate local block."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn


class StemModule(nn.Module):
    """The stem of a trunk as the module of a unit.

    Args:
        parts: The modules and parameters of the stem, which stay in the trunk.
        run: A function that maps images (N, 3, H, W) to the first unit's ``x``.
    """

    def __init__(self, parts: 'Iterable[nn.Module | nn.Parameter]', run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        for index, part in enumerate(parts):
            self.add_module(str(index), part) if isinstance(part, nn.Module) else self.register_parameter(
                str(index), part
            )
        self._run = run

    def forward(self, images: Tensor) -> Tensor:
        return self._run(images)
