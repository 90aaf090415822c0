# Variables that make an MMDetection detector with a ResNet block-local. A config places them:
#
#     _base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'manpp_mm::_base_/detection.py']
#     custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
#     model = dict(backbone=_base_.manpp_backbone)
#     custom_hooks = _base_.manpp_hooks
#     default_hooks = _base_.manpp_default_hooks
#     optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)

_base_ = './local_learning.py'

# Cuts after layer2 and layer3 of a ResNet-50, local losses at strides 16 and 32. Measured with tools/benchmark.py on
# Faster R-CNN at 2 x 800x1333 (stem and layer1 frozen, float32, CPU): peak live bytes 0.524 of end-to-end's, time of a
# forward and backward 0.94; a frozen backbone, the floor that neck and heads set, needs 0.436.
manpp_backbone = dict(
    type='LocalResNet',
    cuts=[(1, 3), (2, 5)],
    local_blocks=None,
    auxiliary=dict(
        projection=dict(out_channels=128),
        # Plain FCOS: in one short run each on COCO images GIoU learned no boxes (hardly a gradient while boxes are
        # small), and `norm_on_bbox` none in block 0 (its ReLU died).
        head=dict(type='FCOSHead', num_classes=80, feat_channels=128, stacked_convs=1),
    ),
)
