"""Which modules of a model can spare memory: what is checkpointed of neck and heads, whose loss is taken early."""

from torch import nn

HEADS = (
    'neck', 'encoder.layers', 'decoder.layers', 'bbox_head', 'mask_head', 'roi_head.mask_head', 'panoptic_head',
    'decode_head',
)  # fmt: skip
"""What is checkpointed where a model has it; of a cascade or a transformer each member."""

INSIDE = ('pixel_decoder.encoder.layers', 'transformer_decoder.layers')
"""What of a head is checkpointed in its place where it has both: Mask2Former's layers, one by one. As a whole the head
kept 0.91 of end-to-end training's peak, its layers 0.51 (256x512)."""

EARLY = ('rpn_head',)
"""The heads whose losses are taken early; checkpointing the RPN as well was measured to spare nothing more."""


def spared_modules(model: nn.Module) -> list[str]:
    """Names of the modules of neck and heads to checkpoint, for ``CheckpointModulesHook``."""
    present = dict(model.named_modules())
    found = []
    for head in HEADS:
        inside = [f'{head}.{name}' for name in INSIDE]
        parts = inside if all(part in present for part in inside) else [head]
        found += [name for part in parts if part in present for name in members(present[part], part)]
    return [name for name in found if any(True for _ in present[name].parameters())]  # a pooling neck keeps nothing


def early_heads(model: nn.Module) -> list[str]:
    """Names of the heads whose losses can be taken early, for ``EarlyLossHook``."""
    present = dict(model.named_modules())
    return [name for name in EARLY if hasattr(present.get(name), 'loss_by_feat')]


def members(module: nn.Module, name: str) -> list[str]:
    """The name of a module, or those of a list's members."""
    return [f'{name}.{member}' for member in range(len(module))] if isinstance(module, nn.ModuleList) else [name]
