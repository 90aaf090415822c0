# What detection.py and segmentation.py share.

manpp_hooks = [
    dict(type='LocalLearningHook'),
    dict(type='MomentumHook', momentum=0.995),
    # Logs the scaling biases and how far the momentum branches are from their units.
    dict(type='LocalScalarsHook'),
    # Stops at a loss that is NaN or infinite.
    dict(type='FiniteLossHook'),
    # With randomness=dict(seed=...) a resumed run goes on as one that never stopped.
    dict(type='ReproducibleHook'),
]

# Checkpoints that survive being killed while they are written.
manpp_default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))

# A key of their own, so that a learning rate multiplier of `backbone` does not reach the auxiliary networks.
manpp_paramwise = dict(custom_keys={'backbone.auxiliary': dict(lr_mult=1.0)})
# For a Swin Transformer, whose norms do not decay, nor its branches'.
manpp_swin_paramwise = dict(
    custom_keys={
        'backbone.auxiliary': dict(lr_mult=1.0),
        'branches.learnable.block.norm': dict(decay_mult=0.0),
        'branches.learnable.merging.norm': dict(decay_mult=0.0),
    }
)
