# camvid_deeplabv3_r18_manpp.py with DGL and cuts for two processes of about the same work, without validation: what
# tools/benchmark_split.py times.
_base_ = './camvid_deeplabv3_r18_manpp.py'

model = dict(backbone=dict(cuts=[(1, 1), (2, 0)], auxiliary=dict(branches=[])))
custom_hooks = [hook for hook in _base_.custom_hooks if hook['type'] != 'MomentumHook']
max_iters = 60
train_cfg = dict(max_iters=max_iters)
val_cfg = val_dataloader = val_evaluator = None
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_iters))
log_processor = dict(window_size=10)
