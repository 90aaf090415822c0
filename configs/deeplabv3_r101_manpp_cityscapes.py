# DeepLabV3 R101-d8 on Cityscapes. layer3 holds 23 of its 33 units at stride 8: two of the cuts lie inside it.
_base_ = './deeplabv3_r50_manpp_cityscapes.py'
model = dict(
    pretrained='open-mmlab://resnet101_v1c',
    backbone=dict(depth=101, cuts=[(1, 1), (2, 7), (2, 15), (3, 0)]),
)
