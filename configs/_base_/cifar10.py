# CIFAR-10 and a recipe for block-local ResNets with the settings of the authors' release: 400 epochs, 1024 images a
# step, cosine, ten epochs of warm-up. MMPretrain downloads missing data to CIFAR10_ROOT, or data/cifar10.
_base_ = ['mmpretrain::_base_/datasets/cifar10_bs16.py', 'mmpretrain::_base_/default_runtime.py', './classification.py']
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)

cifar10_root = '{{$CIFAR10_ROOT:data/cifar10}}/'
train_dataloader = dict(batch_size=1024, num_workers=4, persistent_workers=True, dataset=dict(data_root=cifar10_root))
val_dataloader = dict(batch_size=1000, dataset=dict(data_root=cifar10_root))
test_dataloader = val_dataloader

# DGL's form, at stride 4: maps of 8x8 pixels, branches and all.
manpp_auxiliary = dict(stride=4, **_base_.manpp_mlp)
manpp_auxiliary['head'] |= dict(num_classes=10)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='LocalCIFARResNet', auxiliary=manpp_auxiliary),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)

max_epochs = 400
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.8, momentum=0.9, weight_decay=1e-4, nesterov=True),
    paramwise_cfg=_base_.manpp_paramwise,
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=10, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=10)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
custom_hooks = _base_.manpp_hooks
default_hooks = dict(checkpoint=dict(**_base_.manpp_default_hooks['checkpoint'], interval=10, max_keep_ckpts=1))
randomness = dict(seed=0)
