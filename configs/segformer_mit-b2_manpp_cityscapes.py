# SegFormer MiT-B2 on Cityscapes, 160k iterations at 1024x1024, the backbone trained block by block; a unit is a layer.
_base_ = [
    'mmseg::segformer/segformer_mit-b2_8xb1-160k_cityscapes-1024x1024.py',
    './_base_/segmentation.py',
    './_base_/cityscapes_data.py',
]
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
model = dict(backbone=_base_.manpp_backbone)
# Cuts in the third stage go lower, but copies of its layers cost a tenth of the work.
model['backbone'] |= dict(type='LocalMixVisionTransformer', cuts=[(0, 2), (1, 2)])
model['backbone']['auxiliary']['head']['norm_cfg'] = dict(type='SyncBN', requires_grad=True)
custom_hooks = _base_.manpp_hooks
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)
optim_wrapper = dict(paramwise_cfg=_base_.manpp_transformer_paramwise)
auto_scale_lr = dict(enable=False, base_batch_size=8)
# Upstream lets cuDNN search for the fastest algorithms, which tries workspaces of many GB in the first step.
env_cfg = dict(cudnn_benchmark=False)

pipeline = _base_.cityscapes_train_pipeline
pipeline[4]['crop_size'] = (1024, 1024)
train_dataloader = dict(dataset=dict(data_root=_base_.cityscapes_root, pipeline=pipeline))
val_dataloader = dict(dataset=dict(data_root=_base_.cityscapes_root, pipeline=_base_.cityscapes_test_pipeline))
test_dataloader = dict(dataset=dict(data_root=_base_.cityscapes_root, pipeline=_base_.cityscapes_test_pipeline))
