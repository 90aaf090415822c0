# Faster R-CNN R50 on BCCD (blood cells), fine-tuned from ImageNet's weights with stem and layer1 frozen, as MMDetection
# does: the base of a grid of tools/compare.py that tests whether the ways to train differ measurably.
_base_ = './bccd_faster_rcnn_r18_manpp.py'

model = dict(
    backbone=dict(
        depth=50,
        base_channels=64,
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='{{$R50_WEIGHTS:torchvision://resnet50}}'),
        cuts=[(1, 1), (2, 2)],
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))

max_epochs = 5
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True),
]
