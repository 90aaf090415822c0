# Variables that detection.py, segmentation.py and classification.py share.

manpp_hooks = [
    dict(type='LocalLearningHook'),
    dict(type='MomentumHook', momentum=0.995),
    # Logs the scaling biases and the distances of the momentum branches from their units.
    dict(type='LocalScalarsHook'),
    # Stops at a NaN or infinite loss.
    dict(type='FiniteLossHook'),
    # With randomness=dict(seed=...), a resumed run equals an uninterrupted one.
    dict(type='ReproducibleHook'),
]

# Checkpoints stay intact if the process is killed during a write.
manpp_default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))

# A separate key, so that a learning rate multiplier for `backbone` does not apply to the auxiliary networks.
manpp_paramwise = dict(custom_keys={'backbone.auxiliary': dict(lr_mult=1.0)})
# For transformers (Swin, PVT, MiT): no weight decay for their norms and for the copies in the branches.
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
