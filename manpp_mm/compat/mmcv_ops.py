"""torchvision's kernels for ``mmcv.ops`` if mmcv has no compiled ops.

``mmcv-lite`` installs anywhere; ``mmcv`` needs a wheel built for the installed torch version. MMDetection imports
``mmcv.ops`` in either case, which loads the extension module ``mmcv._ext``. If it is missing, a stand-in replaces it,
with mmcv's signatures and torchvision's kernels. A compiled mmcv always takes precedence.

This is one file of more than 300 lines, so that it can be used alone, without this package.
"""

import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
import torchvision
from torch import Tensor

NAME = 'mmcv._ext'


def apply() -> None:
    """Install the stand-in, unless mmcv is absent or has compiled ops."""
    if importlib.util.find_spec('mmcv') is None or NAME in sys.modules or importlib.util.find_spec(NAME) is not None:
        return
    module = _StandIn(NAME, __doc__)
    # mmengine and mmcv look for the loader to find out whether ops exist.
    module.__spec__ = ModuleSpec(NAME, Loader())
    sys.modules[NAME] = module


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Callable:
        if name.startswith('__'):
            raise AttributeError(name)
        return _KERNELS.get(name) or _missing(name)


def _missing(name: str) -> Callable:
    def kernel(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            f"mmcv's op {name!r} needs a compiled mmcv; torchvision has no kernel that could stand in. Install mmcv>="
            "2.0.0,<2.2.0 built for your torch and CUDA versions in place of mmcv-lite (MMCV's installation page lists "
            'the wheels), or choose a model without this op.'
        )

    return kernel


def _full(tensor: Tensor) -> Tensor:
    """Convert half precision to float32, which torchvision's CPU kernels need; its autocast rule does the same."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _fill(output: Tensor, kernel: Callable[[], Tensor]) -> None:
    """Set ``output`` to the kernel's result; the zeros that mmcv allocated for it are freed first."""
    dtype, shape = output.dtype, output.shape
    output.set_()  # type: ignore[call-overload]
    output.set_(kernel().to(dtype).reshape(shape))  # type: ignore[call-overload]


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the kept boxes, best first; with ``offset`` 1, a box includes its last pixel."""
    boxes = _full(boxes)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, _full(scores), iou_threshold)


def _check_average(pool_mode: int) -> None:
    if pool_mode != 1:
        _missing("roi_align with pool_mode='max'")()


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    _check_average(pool_mode)
    size = (aligned_height, aligned_width)
    values = _full(input)
    _fill(
        output,
        lambda: torchvision.ops.roi_align(
            values, rois.to(values.dtype), size, spatial_scale, sampling_ratio, bool(aligned)
        ),
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    _check_average(pool_mode)
    shape, gradient = grad_input.shape, _full(grad_output)
    _fill(
        grad_input,
        lambda: torch.ops.torchvision._roi_align_backward(
            gradient,
            rois.to(gradient.dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            *shape,
            sampling_ratio,
            bool(aligned),
        ),
    )


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Run RoI pooling; torchvision rounds a region's corners to whole cells first, mmcv's CUDA kernel each bin."""
    values = _full(input)
    pooled, index = torch.ops.torchvision.roi_pool(
        values, rois.to(values.dtype), spatial_scale, pooled_height, pooled_width
    )
    _fill(output, lambda: pooled)
    _fill(argmax, lambda: index)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    shape, gradient = grad_input.shape, _full(grad_output)
    _fill(
        grad_input,
        lambda: torch.ops.torchvision._roi_pool_backward(
            gradient, rois.to(gradient.dtype), argmax, spatial_scale, pooled_height, pooled_width, *shape
        ),
    )


def _focal_loss(input: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    classes = input.size(1)
    one_hot = torch.nn.functional.one_hot(target, classes + 1)[:, :classes].to(input.dtype)  # `classes`: background
    loss = torchvision.ops.sigmoid_focal_loss(input, one_hot, alpha=alpha, gamma=gamma)
    if weight.numel():
        loss = loss * torch.cat([weight, weight.new_ones(1)])[target].unsqueeze(1)
    return loss


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    _fill(output, lambda: _focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    leaf = input.detach().requires_grad_()
    with torch.enable_grad():
        loss = _focal_loss(leaf, target, weight, gamma, alpha).sum()
    _fill(grad_input, lambda: torch.autograd.grad(loss, leaf)[0])


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    **_: int,
) -> None:
    _fill(
        output,
        lambda: torchvision.ops.deform_conv2d(
            _full(input),
            _full(offset),
            _full(weight),
            stride=(dH, dW),
            padding=(padH, padW),
            dilation=(dilationH, dilationW),
        ),
    )


def _deform_conv_backward(
    gradient: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    deform_groups: int,
) -> tuple[Tensor, ...]:
    """Return the gradients of input, weight, offset, mask and bias."""
    input = _full(input)
    empty = input.new_zeros((input.size(0), 0))
    return torch.ops.torchvision._deform_conv2d_backward(
        _full(gradient),
        input,
        _full(weight),
        _full(offset),
        empty if mask is None else _full(mask),
        input.new_zeros(weight.size(0)) if bias is None else _full(bias),
        *stride,
        *padding,
        *dilation,
        groups,
        deform_groups,
        mask is not None,
    )


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    **_: int,
) -> None:
    geometry = (dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group
    gradients = _deform_conv_backward(grad_output, input, weight, offset, None, None, *geometry)
    _fill(grad_input, lambda: gradients[0])
    _fill(grad_offset, lambda: gradients[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    **_: int,
) -> None:
    geometry = (dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group
    gradients = _deform_conv_backward(grad_output, input, grad_weight, offset, None, None, *geometry)
    _fill(grad_weight, lambda: gradients[1] * scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    with_bias: bool,
    **_: int,
) -> None:
    _fill(
        output,
        lambda: torchvision.ops.deform_conv2d(
            _full(input),
            _full(offset),
            _full(weight),
            _full(bias) if with_bias else None,
            stride=(stride_h, stride_w),
            padding=(pad_h, pad_w),
            dilation=(dilation_h, dilation_w),
            mask=_full(mask),
        ),
    )


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
    **_: int,
) -> None:
    geometry = (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group
    gradients = _deform_conv_backward(grad_output, input, weight, offset, mask, bias if with_bias else None, *geometry)
    targets = [grad_input, grad_weight, grad_offset, grad_mask] + ([grad_bias] if with_bias else [])
    for target, gradient in zip(targets, gradients, strict=False):
        _fill(target, gradient.detach)


def _attend(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Run deformable attention over several levels with PyTorch's own operators, like mmcv on a CPU."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    return _attend(value, value_spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    inputs = [each.detach().requires_grad_() for each in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = _attend(inputs[0], value_spatial_shapes, *inputs[1:])
    gradients = torch.autograd.grad(output, inputs, grad_output)
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        _fill(target, gradient.detach)


def get_compiler_version() -> str:
    return 'none (mmcv-lite)'


def get_compiling_cuda_version() -> str:
    return 'none (torchvision kernels by manpp_mm)'


_KERNELS = {
    kernel.__name__: kernel
    for kernel in (
        nms,
        roi_align_forward,
        roi_align_backward,
        roi_pool_forward,
        roi_pool_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
        deform_conv_forward,
        deform_conv_backward_input,
        deform_conv_backward_parameters,
        modulated_deform_conv_forward,
        modulated_deform_conv_backward,
        ms_deform_attn_forward,
        ms_deform_attn_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}
