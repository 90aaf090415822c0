# Faster R-CNN R18 of half width on BCCD (blood cells), from scratch: the base of a grid of tools/compare.py for
# detection. From scratch the local losses have to carry the features.
_base_ = ['../_base_/demo_detection.py', '../_base_/detection.py']
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)

model = dict(backbone=_base_.manpp_backbone, roi_head=dict(bbox_head=dict(num_classes=3)))
# One unit before what the planner finds, for 6 MB of 72: the head sees the block's own stride, and C3 learns from
# the task. On two seeds that closed most of the gap (docs/ablations.md).
model['backbone'] |= dict(
    cuts=[(1, 0)],
    auxiliary=dict(
        projection=dict(out_channels=64),
        head=dict(type='FCOSHead', num_classes=3, feat_channels=64, stacked_convs=1, center_sampling=True),
    ),
)
custom_hooks = _base_.manpp_hooks
default_hooks = _base_.manpp_default_hooks
# Chosen for end-to-end among 5e-4 and 1e-3 on seed 90: docs/ablations.md.
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=_base_.manpp_paramwise)

root = '{{$BCCD_ROOT:data/bccd}}/'
classes = dict(classes=('RBC', 'WBC', 'Platelets'))
train_dataloader = dict(
    dataset=dict(
        data_root=root,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        metainfo=classes,
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=root,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        metainfo=classes,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True),
]
default_hooks.update(
    logger=dict(interval=20), checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=1)
)
