# DeepLabV3 with three stages of a half-width ResNet-18 on CamVid at 240x180, from scratch.
_base_ = './camvid_deeplabv3_r50_manpp.py'

model = dict(
    backbone=dict(
        type='LocalResNet',
        depth=18,
        base_channels=32,
        num_stages=3,
        out_indices=(0, 1, 2),
        strides=(1, 2, 1),
        dilations=(1, 1, 2),
        norm_eval=False,
        init_cfg=None,
        cuts=[(0, 1), (1, 1)],
        auxiliary=dict(stride=16, loss_resolution='feature', projection=dict(out_channels=64), head=dict(channels=64)),
    ),
    decode_head=dict(in_channels=128, in_index=2, channels=64),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.01))
# Twelve epochs of 46 steps.
max_iters = 552
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 3)
