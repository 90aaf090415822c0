"""InfoPro's reconstruction of the image from a local block's output."""

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F


class ReconstructionHead(BaseModule):
    """A small decoder from a block's output to the image, with a binary cross-entropy loss.

    It keeps information about the image in a block's output for later blocks. Source: InfoPro (ICLR 2021), whose local
    loss adds this term to that of the task. InfoPro upsamples the features to the image; here, the image is downsampled
    to the features' size, which saves memory: at stride 8, it has 1/64 of the pixels.

    Args:
        in_channels: Channels of the block's output.
        channels: Channels of the decoder's single hidden layer.
        loss_weight: Factor of the loss.

    Raises:
        ValueError: ``loss_weight`` is not positive.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, in_channels: int, channels: int = 12, loss_weight: float = 1.0) -> None:
        super().__init__()
        if loss_weight <= 0:
            raise ValueError(
                f'auxiliary.reconstruction.loss_weight={loss_weight!r} must be positive; to omit the term, set '
                'auxiliary.reconstruction=None'
            )
        self.loss_weight = loss_weight
        # Not saved, because the model's data_preprocessor has them.
        self.register_buffer('mean', None, persistent=False)
        self.register_buffer('std', None, persistent=False)
        self.hidden = ConvModule(in_channels, channels, 3, padding=1, norm_cfg=dict(type='BN'))
        self.output = nn.Conv2d(channels, 3, 3, padding=1)

    def set_statistics(self, mean: Tensor | None, std: Tensor | None) -> None:
        """Set mean and standard deviation (3, 1, 1) by which images of 0 to 255 were normalized; None removes them."""
        self.mean, self.std = mean, std

    def forward(self, x: Tensor, images: Tensor) -> Tensor:
        """Return the loss.

        Args:
            x: A block's output (N, C, h, w).
            images: The batch (N, 3, H, W), normalized.

        Raises:
            RuntimeError: :meth:`set_statistics` was not called.
        """
        if self.mean is None or self.std is None:
            raise RuntimeError(
                'auxiliary.reconstruction needs the images before normalization: LocalLearningHook passes mean and std '
                'of model.data_preprocessor, so set both there'
            )
        logits = self.output(self.hidden(x))
        pixels = ((images * self.std + self.mean) / 255).clamp(0, 1)
        target = F.adaptive_avg_pool2d(pixels, logits.shape[-2:]).to(logits.dtype)
        return self.loss_weight * F.binary_cross_entropy_with_logits(logits, target)
