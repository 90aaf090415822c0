# Faster R-CNN X101-32x4d-FPN on COCO.
_base_ = './faster_rcnn_r101_manpp_coco.py'
model = dict(
    backbone=dict(
        type='LocalResNeXt',
        groups=32,
        base_width=4,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnext101_32x4d'),
    )
)
