# Faster R-CNN X101-32x4d-FPN on COCO. Measured as R50: peak live bytes 0.390 of end-to-end's.
_base_ = './faster_rcnn_r101_manpp_coco.py'
model = dict(
    backbone=dict(
        type='LocalResNeXt',
        groups=32,
        base_width=4,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnext101_32x4d'),
    )
)
