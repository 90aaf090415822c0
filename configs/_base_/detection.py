# Variables that make an MMDetection detector with a ResNet block-local. A config places them:
#
#     _base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'manpp_mm::_base_/detection.py']
#     custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
#     model = dict(backbone=_base_.manpp_backbone)
#     custom_hooks = _base_.manpp_hooks
#     optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)

_base_ = './local_learning.py'

# Cuts after the fourth unit of layer2 and the sixth of layer3 (the stage ends of a ResNet-50), the local losses at
# strides 16 and 32. A cut in layer1 would put a local loss at stride 8, whose head costs more memory than it saves.
manpp_backbone = dict(
    type='LocalResNet',
    cuts=[(1, 3), (2, 5)],
    local_blocks=None,
    auxiliary=dict(
        projection=dict(out_channels=128),
        head=dict(type='FCOSHead', num_classes=80, feat_channels=128, stacked_convs=1),
    ),
)
