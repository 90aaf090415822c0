# ViT-Tiny (DeiT's) on ImageNet in four local blocks of three layers. As in the authors' release, a local loss sees the
# class token. Their learnable branch copies two layers; here both branches do, on patches pooled by two in each
# dimension. Everything else is upstream's.
_base_ = ['mmpretrain::deit/deit-tiny_4xb256_in1k.py', './_base_/local_learning.py', './_base_/imagenet_data.py']
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='LocalVisionTransformer',
        cuts=[(0, 2), (0, 5), (0, 8)],
        auxiliary=dict(
            units=2,
            stride=32,
            class_token=True,
            head=dict(
                type='VisionTransformerClsHead',
                num_classes=1000,
                loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
            ),
        ),
    )
)
custom_hooks = _base_.manpp_hooks
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)

train_dataloader = dict(dataset=dict(data_root=_base_.imagenet_root))
val_dataloader = dict(dataset=dict(data_root=_base_.imagenet_root))
test_dataloader = val_dataloader
