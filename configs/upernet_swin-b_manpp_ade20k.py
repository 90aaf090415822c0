# UPerNet Swin-B on ADE20K, 160k iterations at 512x512, the backbone trained block by block; a unit is a Swin block.
_base_ = [
    'mmseg::swin/swin-base-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    './_base_/segmentation.py',
    './_base_/ade20k_data.py',
]
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
# The local losses replace upstream's auxiliary FCN head on stage 2.
model = dict(backbone=_base_.manpp_backbone, auxiliary_head=None)
# UPerNet's own head holds most of the memory: one cut, found by tools/fit.py.
model['backbone'] |= dict(type='LocalSwinTransformer', cuts=[(3, 0)])
model['backbone']['auxiliary']['head'] |= dict(num_classes=150, norm_cfg=dict(type='SyncBN', requires_grad=True))
custom_hooks = _base_.manpp_hooks
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)
optim_wrapper = dict(paramwise_cfg=_base_.manpp_transformer_paramwise)
auto_scale_lr = dict(enable=False, base_batch_size=16)
# Upstream lets cuDNN search for the fastest algorithms, which tries workspaces of many GB in the first step.
env_cfg = dict(cudnn_benchmark=False)

train_dataloader = dict(dataset=dict(data_root=_base_.ade20k_root, pipeline=_base_.ade20k_train_pipeline))
val_dataloader = dict(dataset=dict(data_root=_base_.ade20k_root, pipeline=_base_.ade20k_test_pipeline))
test_dataloader = dict(dataset=dict(data_root=_base_.ade20k_root, pipeline=_base_.ade20k_test_pipeline))
