# Location of Cityscapes: the environment variable CITYSCAPES_ROOT, or data/cityscapes. A config places these variables
# (see ../deeplabv3_r50_manpp_cityscapes.py).
cityscapes_root = '{{$CITYSCAPES_ROOT:data/cityscapes}}/'

# Upstream's pipelines and a check of the label maps. A crop of another size needs `model.data_preprocessor.size` too.
cityscapes_train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckLabels', num_classes=19),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 1024), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
# Label maps are not resized for the metric.
cityscapes_test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 1024), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='CheckLabels', num_classes=19),
    dict(type='PackSegInputs'),
]
