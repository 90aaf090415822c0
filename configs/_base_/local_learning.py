# What detection.py and segmentation.py share.

manpp_hooks = [
    dict(type='LocalLearningHook'),
    dict(type='MomentumHook', momentum=0.995),
]

# A key of their own, so that a learning rate multiplier of `backbone` does not reach the auxiliary networks.
manpp_paramwise = dict(custom_keys={'backbone.auxiliary': dict(lr_mult=1.0)})
