# ResNet-50 on ImageNet in four local blocks. All settings unrelated to local learning are upstream's.
_base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py', './_base_/classification.py', './_base_/imagenet_data.py']
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
model = dict(backbone=_base_.manpp_backbone)
custom_hooks = _base_.manpp_hooks
default_hooks = _base_.manpp_default_hooks
optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)
randomness = dict(seed=0)

train_dataloader = dict(dataset=dict(data_root=_base_.imagenet_root))
val_dataloader = dict(dataset=dict(data_root=_base_.imagenet_root))
test_dataloader = val_dataloader
