# Variables that make an MMDetection detector with a ResNet block-local. A config places them:
#
#     _base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'manpp_mm::_base_/detection.py']
#     custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
#     model = dict(backbone=_base_.manpp_backbone)
#     custom_hooks = _base_.manpp_hooks
#     default_hooks = _base_.manpp_default_hooks
#     optim_wrapper = dict(clip_grad=_base_.manpp_clip_grad, paramwise_cfg=_base_.manpp_paramwise)

_base_ = './local_learning.py'

# Cuts before the last unit of layer2 and of layer3 of a ResNet-50, local losses at strides 8 and 16. Measured with
# tools/benchmark.py: docs/performance.md. faster_rcnn_r50_manpp_lean_coco.py has the cheapest ones; they cost
# accuracy on small objects (docs/ablations.md).
manpp_backbone = dict(
    type='LocalResNet',
    cuts=[(1, 2), (2, 4)],
    local_blocks=None,
    auxiliary=dict(
        projection=dict(out_channels=128),
        # FCOSHead with a loss that does not wait for the GPU. Center sampling gives a small object about as many
        # positives as a large one; on one level, a large one otherwise has a hundred times as many (docs/ablations.md).
        # In one short run each on COCO images, GIoU learned no boxes (hardly any gradient while boxes are small), and
        # `norm_on_bbox` learned none in block 0 (its ReLU died).
        head=dict(type='PaddedFCOSHead', num_classes=80, feat_channels=128, stacked_convs=1, center_sampling=True),
    ),
)

# As in upstream's FCOS configs, because the local losses are FCOS's.
manpp_clip_grad = dict(max_norm=35, norm_type=2)
