# Mask R-CNN Swin-T-FPN on COCO, 12 epochs, all of the backbone trained block by block; a unit is a Swin block.
# All settings unrelated to local learning are upstream's.
_base_ = [
    'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
    './_base_/detection.py',
    './_base_/coco_data.py',
]
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
model = dict(backbone=_base_.manpp_backbone)
model['backbone'] |= dict(type='LocalSwinTransformer', cuts=[(0, 0), (1, 0), (2, 3)])
# At the blocks' own strides, the auxiliary networks (copies of Swin blocks) would need more memory than they save.
model['backbone']['auxiliary']['stride'] = 16
# The RPN's loss becomes a gradient before the RoI head runs, which frees its activations.
custom_hooks = [*_base_.manpp_hooks, dict(type='EarlyLossHook', heads=['rpn_head'])]
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)
optim_wrapper = dict(clip_grad=_base_.manpp_clip_grad, paramwise_cfg=_base_.manpp_transformer_paramwise)

train_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
test_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
