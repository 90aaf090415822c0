# DeepLabV3 R101-d8 on Cityscapes. layer3 holds 23 of its 33 units at stride 8: two of the cuts lie inside it.
# Measured as R50: peak live bytes 0.430 of end-to-end's, time 1.04.
_base_ = './deeplabv3_r50_manpp_cityscapes.py'
model = dict(
    pretrained='open-mmlab://resnet101_v1c',
    backbone=dict(depth=101, cuts=[(1, 1), (2, 7), (2, 15), (3, 0)]),
)
