# DeepLabV3 R18-d8 on Cityscapes, for small machines: narrower head, one cut inside layer2.
_base_ = './deeplabv3_r50_manpp_cityscapes.py'
model = dict(
    pretrained='open-mmlab://resnet18_v1c',
    backbone=dict(
        depth=18,
        cuts=[(1, 0)],
        auxiliary=dict(projection=None),  # the unit itself has 128 channels
    ),
    decode_head=dict(in_channels=512, channels=128),
)
