# DeepLabV3 R50 on CamVid at 480x360 with features at stride 8, cut as deeplabv3_r50_manpp_cityscapes.py is: for a GPU.
_base_ = './camvid_deeplabv3_r50_manpp.py'

size = (360, 480)
model = dict(
    data_preprocessor=dict(size=size),
    backbone=dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), cuts=[(1, 2), (2, 4)]),
    decode_head=dict(dilations=(1, 12, 24, 36)),
)
train_dataloader = dict(batch_size=4, num_workers=2, persistent_workers=True)
val_dataloader = dict(batch_size=4, num_workers=2, persistent_workers=True)
test_dataloader = val_dataloader
train_dataloader['dataset'] = dict(
    pipeline=[
        *_base_.train_dataloader.dataset.pipeline[:3],
        dict(type='Resize', scale=size[::-1]),
        *_base_.train_dataloader.dataset.pipeline[4:],
    ]
)
val_dataloader['dataset'] = dict(
    pipeline=[
        _base_.val_dataloader.dataset.pipeline[0],
        dict(type='Resize', scale=size[::-1]),
        *_base_.val_dataloader.dataset.pipeline[2:],
    ]
)

# Eight epochs of 46 steps.
max_iters = 368
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=0.9, eta_min=1e-5, by_epoch=False, begin=50, end=max_iters),
]
