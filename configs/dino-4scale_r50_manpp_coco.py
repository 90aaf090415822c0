# DINO R50 with four scales on COCO, 12 epochs, the backbone trained block by block. The layers of encoder and decoder,
# which hold most of the memory, are checkpointed. Everything else is upstream's.
_base_ = [
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    './_base_/detection.py',
    './_base_/coco_data.py',
]
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
model = dict(backbone=_base_.manpp_backbone)
custom_hooks = [
    *_base_.manpp_hooks,
    dict(type='CheckpointModulesHook', modules=['encoder.layers.*', 'decoder.layers.*']),
]
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)
optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)

train_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
test_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
