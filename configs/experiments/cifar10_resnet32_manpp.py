# ResNet-32 on CIFAR-10 in mosaics, one picture a class: K = 16, the stem and each unit a block. For a GPU; images stay
# in memory. The schedule is a quarter of the one in ../_base_/cifar10.py. docs/ablations.md has the command.
_base_ = '../resnet32_manpp_cifar10.py'

dataset = dict(_delete_=True, type='MosaicDataset', data_root='{{$CIFAR10_MOSAICS:data/cifar10_mosaics}}')
train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128, dataset=dict(split='train', pipeline=train_pipeline, **dataset))
val_dataloader = dict(dataset=dict(split='test', pipeline=[dict(type='PackInputs')], **dataset))
test_dataloader = val_dataloader

max_epochs = 100
optim_wrapper = dict(optimizer=dict(lr=0.1))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=3, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
