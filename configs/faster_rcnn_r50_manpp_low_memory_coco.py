# Faster R-CNN R50-FPN on COCO with every exact saving on top of local blocks: units and neck checkpointed, the RPN with
# an early loss.
_base_ = './faster_rcnn_r50_manpp_coco.py'
model = dict(backbone=dict(with_cp=True))
custom_hooks = [*_base_.custom_hooks, dict(type='CheckpointModulesHook', modules=['neck'])]
