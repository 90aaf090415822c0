# RetinaNet R50-FPN on COCO with lean auxiliary networks: one-level FCOS heads at stride 16, cuts after layer2's first
# unit and before layer3's last one. All of the backbone trains, as in retinanet_r50_manpp_coco.py, its twin after the
# authors' recipe.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    './_base_/detection.py',
    './_base_/coco_data.py',
]
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
model = dict(backbone=_base_.manpp_backbone)
model['backbone'] |= dict(frozen_stages=-1, cuts=[(1, 0), (2, 4)])
model['backbone']['auxiliary']['stride'] = 16
custom_hooks = _base_.manpp_hooks
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)
optim_wrapper = dict(clip_grad=_base_.manpp_clip_grad, paramwise_cfg=_base_.manpp_paramwise)

train_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
test_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
