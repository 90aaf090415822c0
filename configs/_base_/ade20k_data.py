# Location of ADE20K: the environment variable ADE20K_ROOT, or data/ade/ADEChallengeData2016. A config places these
# variables (see ../upernet_swin-t_manpp_ade20k.py).
ade20k_root = '{{$ADE20K_ROOT:data/ade/ADEChallengeData2016}}/'

# Upstream's pipelines and a check of the label maps. A crop of another size needs `model.data_preprocessor.size` too.
ade20k_train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='CheckLabels', num_classes=150),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
# Label maps are not resized for the metric.
ade20k_test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='CheckLabels', num_classes=150),
    dict(type='PackSegInputs'),
]
