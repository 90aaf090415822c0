# Faster R-CNN R101-FPN on COCO. layer3 holds 23 of the 33 units, so the cuts lie inside it, as
# tools/fit.py finds them.
_base_ = './faster_rcnn_r50_manpp_coco.py'
model = dict(
    backbone=dict(
        depth=101,
        cuts=[(2, 0), (2, 11), (2, 21)],
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'),
    )
)
