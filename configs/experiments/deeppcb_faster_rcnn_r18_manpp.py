# The detector of bccd_faster_rcnn_r18_manpp.py, from scratch, on DeepPCB (defects of printed circuit boards, 6 kinds):
# ten times as many boxes for training and evaluation. Cut like the shipped detectors, before the last unit of
# layer2 and of layer3.
_base_ = './bccd_faster_rcnn_r18_manpp.py'

num_classes = 6
model = dict(
    backbone=dict(
        cuts=[(1, 0), (2, 0)],
        lateral_gradient=True,
        auxiliary=dict(stride=None, head=dict(type='PaddedFCOSHead', num_classes=num_classes)),
    ),
    roi_head=dict(bbox_head=dict(num_classes=num_classes)),
)

root = '{{$DEEPPCB_ROOT:data/deeppcb}}/'
classes = dict(classes=('open', 'short', 'mousebite', 'spur', 'copper', 'pin-hole'))
# Trained on crops of 320x320, at the defects' own size (a median of 34 pixels), tested on whole images of 640x640.
whole = dict(type='Resize', scale=(640, 640), keep_ratio=True)
crop = dict(type='RandomCrop', crop_size=(320, 320), allow_negative_crop=True)
train_dataloader = dict(
    dataset=dict(
        data_root=root,
        metainfo=classes,
        pipeline=[*_base_.train_pipeline[:2], whole, crop, *_base_.train_pipeline[3:]],
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=root,
        metainfo=classes,
        pipeline=[_base_.test_pipeline[0], whole, *_base_.test_pipeline[2:]],
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

max_epochs = 3
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True),
]
