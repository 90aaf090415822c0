# RTMDet-L on COCO, 300 epochs, the backbone trained block by block; a unit is a part of a stage of CSPNeXt. Everything
# that is not about local learning is upstream's, its averaged weights and its change of pipelines among it.
_base_ = [
    'mmdet::rtmdet/rtmdet_l_8xb32-300e_coco.py',
    './_base_/detection.py',
    './_base_/coco_data.py',
]
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
model = dict(backbone=_base_.manpp_backbone)
model['backbone'] |= dict(type='LocalCSPNeXt', cuts=[(0, 1), (1, 1)])
custom_hooks = [*_base_.custom_hooks, *_base_.manpp_hooks]
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)
# Upstream's rules for norms and biases also apply to the auxiliary networks.
optim_wrapper = dict(clip_grad=_base_.manpp_clip_grad)

train_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
test_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
