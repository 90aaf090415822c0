# Mask2Former R50 on Cityscapes, 90k iterations, the backbone trained block by block. The layers of pixel decoder and
# transformer decoder, which hold most of the memory, are checkpointed. Needs MMDetection, as upstream's does.
_base_ = [
    'mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py',
    './_base_/segmentation.py',
    './_base_/cityscapes_data.py',
]
custom_imports = dict(imports=['mmdet.models', 'manpp_mm'], allow_failed_imports=False)
model = dict(backbone=_base_.manpp_backbone)
model['backbone'] |= dict(type='LocalResNet', cuts=[(2, 4)])
custom_hooks = [
    *_base_.manpp_hooks,
    dict(
        type='CheckpointModulesHook',
        modules=['decode_head.pixel_decoder.encoder.layers.*', 'decode_head.transformer_decoder.layers.*'],
    ),
]
default_hooks = _base_.manpp_default_hooks
randomness = dict(seed=0)
optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)
# Upstream lets cuDNN search for the fastest algorithms, which tries workspaces of many GB in the first step.
env_cfg = dict(cudnn_benchmark=False)

train_dataloader = dict(dataset=dict(data_root=_base_.cityscapes_root))
val_dataloader = dict(dataset=dict(data_root=_base_.cityscapes_root, pipeline=_base_.cityscapes_test_pipeline))
test_dataloader = dict(dataset=dict(data_root=_base_.cityscapes_root, pipeline=_base_.cityscapes_test_pipeline))
