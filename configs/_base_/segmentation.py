# Variables that make an MMSegmentation segmentor with a ResNet block-local. A config places them:
#
#     _base_ = ['mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'manpp_mm::_base_/segmentation.py']
#     custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
#     model = dict(backbone=_base_.manpp_backbone, auxiliary_head=None)
#     custom_hooks = _base_.manpp_hooks
#     default_hooks = _base_.manpp_default_hooks
#     optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)
#
# `auxiliary_head=None`: the local losses replace upstream's auxiliary FCN head on layer3. On a detached feature, it
# would only train itself, not the backbone.

_base_ = './local_learning.py'

# Cuts after the third unit of layer2 and the fifth of layer3 of a ResNet-50, what tools/fit.py finds for two; the
# local losses at stride 8. Measured with tools/benchmark.py: docs/performance.md.
manpp_backbone = dict(
    type='LocalResNetV1c',
    cuts=[(1, 2), (2, 4)],
    local_blocks=None,
    auxiliary=dict(
        # Auxiliary networks at stride 16 cost almost nothing; their losses stay at that resolution.
        stride=16,
        loss_resolution='feature',
        # Reducing the channels first makes the head several times lighter than a 3x3 convolution on all of the unit's.
        projection=dict(out_channels=128),
        head=dict(type='FCNHead', num_classes=19, channels=128, num_convs=1, concat_input=False),
    ),
)
