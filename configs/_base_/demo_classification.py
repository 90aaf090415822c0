# A small ResNet on the small synthetic images of tools/make_demo_data.py, trained from scratch in minutes on a CPU.
_base_ = 'mmpretrain::_base_/default_runtime.py'

custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
data_preprocessor = dict(num_classes=5, mean=[127.5] * 3, std=[64.0] * 3, to_rgb=False)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='CIFARResNet', depth=14),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
)

demo_root = '{{$DEMO_ROOT:data/demo}}/mosaics'
dataset = dict(type='MosaicDataset', data_root=demo_root, tile=32)
train_pipeline = [
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(split='train', pipeline=train_pipeline, **dataset),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    dataset=dict(split='val', pipeline=[dict(type='PackInputs')], **dataset),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

max_epochs = 8
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=1, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_epochs, max_keep_ckpts=1))
custom_hooks = [dict(type='ReproducibleHook')]
randomness = dict(seed=0)
