"""The CSP backbones of MMDetection: CSPDarknet (YOLOX) and CSPNeXt (RTMDet)."""

from torch import Tensor, nn

from .local_backbone import LocalBackbone
from .unit import Unit


class LocalCSPMixin(LocalBackbone):
    """Makes a CSP backbone local. Its units are the parts of its stages: downsampling, pooling and CSP layer.

    A CSP layer splits its input and joins it at its end, so it cannot be cut inside. ``(0, 0)`` is the first part of
    ``stage1``. A map from the stem (``out_indices`` with 0) belongs to no unit and is refused.
    """

    # Set by the parent class.
    layers: list[str]
    stem: nn.Module

    def units(self) -> list[Unit]:
        units, stride = [], 2  # of the stem
        for stage, name in enumerate(self.layers[1:]):
            parts = getattr(self, name)
            convolution = [m for m in parts[0].modules() if isinstance(m, nn.Conv2d)][-1]
            stride *= 2
            for index, part in enumerate(parts):
                output = self.output_after(stage + 1, index == len(parts) - 1)  # the stem's map is upstream's first
                units.append(Unit((stage, index), part, convolution.out_channels, stride, output))
        return units

    def stem_parts(self) -> 'list[nn.Module | nn.Parameter]':
        return [self.stem]

    def stem_geometry(self) -> tuple[int, int]:
        return [m for m in self.stem.modules() if isinstance(m, nn.Conv2d)][-1].out_channels, 2

    def run_stem(self, images: Tensor) -> Tensor:
        return self.stem(images)
