# The same at a size that a CPU trains: 8 to 32 channels, 1000 images a class, reduced to 16x16 pixels, 16 epochs; all
# 10,000 test images.
_base_ = './cifar10_resnet32_manpp.py'

model = dict(backbone=dict(base_channels=8, auxiliary=dict(stride=4)), head=dict(in_channels=32))
projection = dict(out_channels=32, norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU'))
model['backbone']['auxiliary'] |= dict(projection=[projection] * 3, head=dict(mid_channels=[128, 128, 128]))

reduced = dict(type='Resize', scale=16, interpolation='area')
train_pipeline = [
    reduced,
    dict(type='RandomCrop', crop_size=16, padding=2),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(per_class=1000, pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=[reduced, dict(type='PackInputs')]))
test_dataloader = val_dataloader

max_epochs = 16
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=1, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=max_epochs), logger=dict(interval=39))
