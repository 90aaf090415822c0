# Faster R-CNN R50-FPN on COCO, 12 epochs, the backbone trained block by block. Stem and layer1 are frozen, as upstream,
# so that the two compare; all other settings are upstream's.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    './_base_/detection.py',
    './_base_/coco_data.py',
]
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
model = dict(backbone=_base_.manpp_backbone)
# The RPN's loss becomes a gradient before the RoI head runs, which frees its activations.
custom_hooks = [*_base_.manpp_hooks, dict(type='EarlyLossHook', heads=['rpn_head'])]
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)
optim_wrapper = dict(clip_grad=_base_.manpp_clip_grad, paramwise_cfg=_base_.manpp_paramwise)

train_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
test_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
