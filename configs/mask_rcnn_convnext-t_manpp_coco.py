# Mask R-CNN ConvNeXt-T on COCO, 36 epochs in mixed precision, the backbone trained block by block; a unit is a ConvNeXt
# block. Needs MMPretrain. All settings unrelated to local learning are upstream's.
_base_ = [
    'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    './_base_/detection.py',
    './_base_/coco_data.py',
]
custom_imports = dict(imports=['mmpretrain.models', 'manpp_mm'], allow_failed_imports=False)
model = dict(backbone=_base_.manpp_backbone)
model['backbone'] |= dict(type='LocalConvNeXt', cuts=[(1, 0), (3, 1)])
# At the blocks' own strides, the auxiliary networks (copies of ConvNeXt blocks) would need more memory than they save.
model['backbone']['auxiliary']['stride'] = 16
# The RPN's loss becomes a gradient before the RoI head runs, which frees its activations.
custom_hooks = [*_base_.manpp_hooks, dict(type='EarlyLossHook', heads=['rpn_head'])]
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)
# Upstream's learning rates by depth treat the auxiliary networks as heads, which use the full learning rate.
optim_wrapper = dict(clip_grad=_base_.manpp_clip_grad)

train_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
test_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
