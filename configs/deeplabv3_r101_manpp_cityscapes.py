# DeepLabV3 R101-d8 on Cityscapes. layer3 holds 23 of its 33 units at stride 8: all cuts lie inside it, as
# found by tools/fit.py, the last one a unit earlier, where the unit that the branches copy is lighter.
_base_ = './deeplabv3_r50_manpp_cityscapes.py'
model = dict(
    pretrained='open-mmlab://resnet101_v1c',
    backbone=dict(depth=101, cuts=[(2, 3), (2, 12), (2, 21)]),
)
