# PSPNet R50-d8 on Cityscapes, 40k iterations at 512x1024, the backbone trained block by block.
_base_ = [
    'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    './_base_/segmentation.py',
    './_base_/cityscapes_data.py',
]
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
# The local losses replace upstream's auxiliary FCN head on layer3.
model = dict(backbone=_base_.manpp_backbone, auxiliary_head=None)
custom_hooks = _base_.manpp_hooks
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)
optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)
auto_scale_lr = dict(enable=False, base_batch_size=8)
# Upstream lets cuDNN search for the fastest algorithms, which tries workspaces of many GB in the first step.
env_cfg = dict(cudnn_benchmark=False)

train_dataloader = dict(dataset=dict(data_root=_base_.cityscapes_root, pipeline=_base_.cityscapes_train_pipeline))
val_dataloader = dict(dataset=dict(data_root=_base_.cityscapes_root, pipeline=_base_.cityscapes_test_pipeline))
test_dataloader = dict(dataset=dict(data_root=_base_.cityscapes_root, pipeline=_base_.cityscapes_test_pipeline))
