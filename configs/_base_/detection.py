# Variables that make an MMDetection detector with a ResNet block-local. A config places them:
#
#     _base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'manpp_mm::_base_/detection.py']
#     custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
#     model = dict(backbone=_base_.manpp_backbone)
#     custom_hooks = _base_.manpp_hooks
#     default_hooks = _base_.manpp_default_hooks
#     optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)

_base_ = './local_learning.py'

# Cuts before the last unit of layer2 and of layer3 of a ResNet-50, local losses at strides 8 and 16: within 2 % of the
# lowest peak that tools/plan_cuts.py finds for two cuts. On a small detector a cut there was better than one behind the
# unit, within noise (docs/results.md). Measured with tools/benchmark.py: docs/performance.md.
manpp_backbone = dict(
    type='LocalResNet',
    cuts=[(1, 2), (2, 4)],
    local_blocks=None,
    auxiliary=dict(
        projection=dict(out_channels=128),
        # Centre sampling gives a small object about as many positives as a large one, which on one level has a hundred
        # times as many without (docs/results.md). In one short run each on COCO images GIoU learned no boxes (hardly a
        # gradient while boxes are small), and `norm_on_bbox` none in block 0 (its ReLU died).
        head=dict(type='FCOSHead', num_classes=80, feat_channels=128, stacked_convs=1, center_sampling=True),
    ),
)
