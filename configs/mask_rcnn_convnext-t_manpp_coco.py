# Mask R-CNN ConvNeXt-T on COCO, 36 epochs in mixed precision, the backbone trained block by block; a unit is a ConvNeXt
# block. Needs MMPretrain. Everything that is not about local learning is upstream's.
_base_ = [
    'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    './_base_/detection.py',
    './_base_/coco_data.py',
]
custom_imports = dict(imports=['mmpretrain.models', 'manpp_mm'], allow_failed_imports=False)
model = dict(backbone=_base_.manpp_backbone)
model['backbone'] |= dict(type='LocalConvNeXt', cuts=[(1, 0), (3, 1)])
# At the blocks' own strides the auxiliary networks, copies of ConvNeXt blocks, would hold more than they save.
model['backbone']['auxiliary']['stride'] = 16
# The RPN's loss becomes a gradient before the RoI head runs, which spares its activations.
custom_hooks = [*_base_.manpp_hooks, dict(type='EarlyLossHook', heads=['rpn_head'])]
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)
# Upstream's learning rates by depth take the auxiliary networks for heads, which have the whole one.
optim_wrapper = dict(clip_grad=_base_.manpp_clip_grad)

train_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
test_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
