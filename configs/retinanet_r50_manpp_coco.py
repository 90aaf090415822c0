# RetinaNet R50-FPN on COCO after the MAN++ authors' recipe: four blocks at the stage ends, all of the backbone trained,
# each auxiliary network a RetinaNet head with towers of two convolutions on the pyramid levels of its stride: 8; 16;
# 32, 64 and 128, with anchors of 4 times the stride (32; 64; 128, 256 and 512 pixels). The schedule is upstream's.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    './_base_/detection.py',
    './_base_/coco_data.py',
]
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
retina_head = dict(
    type='RetinaHead',
    num_classes=80,
    feat_channels=256,
    stacked_convs=2,
    loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
    loss_bbox=dict(type='SmoothL1Loss', beta=1.0 / 9.0, loss_weight=1.0),
)
model = dict(backbone=_base_.manpp_backbone)
model['backbone'] |= dict(
    frozen_stages=-1,
    local_blocks=4,
    cuts=None,
    auxiliary=[
        dict(projection=dict(out_channels=256), head=retina_head),
        dict(projection=dict(out_channels=256), head=retina_head),
        dict(
            neck=dict(type='FPN', out_channels=256, num_outs=3, add_extra_convs='on_output'),
            head=retina_head,
        ),
    ],
)
custom_hooks = _base_.manpp_hooks
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)
optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)

train_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
test_dataloader = dict(dataset=dict(data_root=_base_.coco_root))
val_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
