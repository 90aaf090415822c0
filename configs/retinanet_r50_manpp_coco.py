# RetinaNet R50-FPN on COCO after the MAN++ authors' recipe: from scratch with live BatchNorm, 600 x 1000 pixels, four
# blocks at the stage ends. Each auxiliary network is a 1x1 projection with ReLU and a RetinaNet head with towers of two
# convolutions on the pyramid levels of its stride: 8; 16; 32, 64 and 128, with anchors of 4 times the stride (32; 64;
# 128, 256 and 512 pixels) at the cells' centres, smooth L1 with beta 1, no low-quality matches, clipping at 1.
# What is MMDetection's: 12 epochs, 88k iterations of 16 images for the authors' 90k; the detector's own neck, head and
# losses. retinanet_r50_manpp_lean_coco.py starts from ImageNet
# weights and needs less.
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
    anchor_generator=dict(
        type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0], center_offset=0.5
    ),
    loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
    loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            match_low_quality=False,
            ignore_iof_thr=-1,
        ),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
)
projection = dict(out_channels=256, act_cfg=dict(type='ReLU'))
model = dict(backbone=_base_.manpp_backbone)
model['backbone'] |= dict(
    frozen_stages=-1,
    norm_eval=False,
    init_cfg=None,
    local_blocks=4,
    cuts=None,
    auxiliary=[
        dict(projection=projection, head=retina_head),
        dict(projection=projection, head=retina_head),
        dict(neck=dict(type='ChannelMapper', kernel_size=1, out_channels=256, num_outs=3), head=retina_head),
    ],
)
custom_hooks = _base_.manpp_hooks
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)
optim_wrapper = dict(clip_grad=dict(max_norm=1.0, norm_type=2), paramwise_cfg=_base_.manpp_paramwise)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(1000, 600), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1000, 600), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(dataset=dict(data_root=_base_.coco_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=_base_.coco_root, pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(data_root=_base_.coco_root, pipeline=test_pipeline))
val_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=_base_.coco_root + 'annotations/instances_val2017.json')
