# Can every way to train overfit? The detector of bccd_faster_rcnn_r18_manpp.py, from scratch, trains on 32 images of
# COCO and is evaluated on the same 32. A sanity check: it says nothing about other images.
_base_ = './bccd_faster_rcnn_r18_manpp.py'

num_classes = 80
model = dict(
    backbone=dict(auxiliary=dict(head=dict(num_classes=num_classes))),
    roi_head=dict(bbox_head=dict(num_classes=num_classes)),
)

images = dict(
    data_root='{{$COCO_ROOT:data/coco}}/',
    ann_file='annotations/instances_train2017.json',
    data_prefix=dict(img='train2017/'),
    metainfo=dict(_delete_=True),
    indices=32,
)
train_dataloader = dict(dataset=images)
# Without an annotation file, CocoMetric uses the annotations of the images and does not count other images as missed.
pack = _base_.test_pipeline[-1]
val_dataloader = dict(
    dataset=dict(
        **images,
        pipeline=[*_base_.test_pipeline[:-1], dict(pack, meta_keys=(*pack.meta_keys, 'instances'))],
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=None)
test_evaluator = val_evaluator

max_epochs = 100
train_cfg = dict(max_epochs=max_epochs, val_interval=25)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', interval=25, max_keep_ckpts=1))
