# Faster R-CNN R50-FPN on COCO with every exact saving on top of local blocks: one more cut, the neck checkpointed, the
# RPN's loss taken early.
_base_ = './faster_rcnn_r50_manpp_coco.py'
model = dict(backbone=dict(cuts=[(1, 0), (1, 3), (3, 0)]))
custom_hooks = [*_base_.custom_hooks, dict(type='CheckpointModulesHook', modules=['neck'])]
