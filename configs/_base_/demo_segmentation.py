# A small DeepLabV3 on the synthetic scenes of tools/make_demo_data.py, trained from scratch in minutes on a CPU.
_base_ = 'mmseg::deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py'

norm_cfg = dict(type='BN', requires_grad=True)
# Trained and tested at half size, for many small steps.
scale = (160, 128)
# Background covers 85 % of the pixels.
loss = dict(type='CrossEntropyLoss', class_weight=[0.2, 1, 1, 1, 1, 1])
model = dict(
    data_preprocessor=dict(size=scale[::-1]),
    pretrained=None,
    # Three stages: layer4 takes half of the time and is not needed here.
    backbone=dict(
        depth=18,
        num_stages=3,
        out_indices=(0, 1, 2),
        strides=(1, 2, 1),
        dilations=(1, 1, 2),
        stem_channels=32,
        base_channels=32,
        norm_cfg=norm_cfg,
        zero_init_residual=False,
    ),
    decode_head=dict(
        in_channels=128,
        in_index=2,
        channels=64,
        dilations=(1, 4, 8, 12),
        num_classes=6,
        norm_cfg=norm_cfg,
        loss_decode=loss,
    ),
    auxiliary_head=dict(
        in_channels=64,
        in_index=1,
        channels=64,
        num_classes=6,
        norm_cfg=norm_cfg,
        loss_decode=loss | dict(loss_weight=0.4),
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckLabels', num_classes=6),
    dict(type='Resize', scale=scale),
    dict(type='RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale),
    dict(type='LoadAnnotations'),
    dict(type='CheckLabels', num_classes=6),
    dict(type='PackSegInputs'),
]
demo_dataset = dict(
    type='BaseSegDataset',
    data_root='{{$DEMO_ROOT:data/demo}}/',
    img_suffix='_leftImg8bit.png',
    seg_map_suffix='_gtFine_labelTrainIds.png',
    metainfo=dict(
        classes=('background', 'disc', 'box', 'triangle', 'star', 'cross'),
        palette=[[90, 90, 90], [220, 60, 60], [60, 160, 60], [60, 90, 220], [230, 190, 40], [170, 60, 190]],
    ),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=train_pipeline,
        **demo_dataset,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=test_pipeline,
        **demo_dataset,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='PresentClassIoUMetric', leave_out=['background'])
test_evaluator = val_evaluator

max_iters = 1400
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=0.9, eta_min=1e-5, by_epoch=False, begin=50, end=max_iters),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_iters, max_keep_ckpts=1))
log_processor = dict(window_size=20)
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
custom_hooks = [dict(type='ReproducibleHook')]
randomness = dict(seed=0)
