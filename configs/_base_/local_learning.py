# What detection.py, segmentation.py and classification.py share.

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
# For a transformer (Swin, PVT, MiT), whose norms do not decay, nor their copies in the branches.
manpp_transformer_paramwise = dict(
    custom_keys={
        'backbone.auxiliary': dict(lr_mult=1.0),
        'branches.learnable.block.norm': dict(decay_mult=0.0),
        'branches.learnable.merging.norm': dict(decay_mult=0.0),
        'branches.learnable.layer.norm': dict(decay_mult=0.0),
        'branches.learnable.layer.attn.norm': dict(decay_mult=0.0),
        'branches.learnable.embed.norm': dict(decay_mult=0.0),
        'branches.learnable.norm': dict(decay_mult=0.0),
    }
)
