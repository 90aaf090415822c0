"""The modules of a model that can save memory: by checkpointing in neck and heads, or by an early loss."""

from torch import nn

HEADS = (
    'neck', 'encoder.layers', 'decoder.layers', 'bbox_head', 'mask_head', 'roi_head.mask_head', 'panoptic_head',
    'decode_head',
)  # fmt: skip
"""Modules to checkpoint if a model has them; each member separately for a cascade or a transformer."""

INSIDE = ('pixel_decoder.encoder.layers', 'transformer_decoder.layers')
"""Parts to checkpoint instead of the whole head if it has both: Mask2Former's layers, one by one. Checkpointing the
whole head left 0.91 of the end-to-end peak, checkpointing its layers 0.51 (256x512)."""

EARLY = ('rpn_head',)
"""Heads with an early loss; checkpointing the RPN as well saved nothing more in measurements."""


def spared_modules(model: nn.Module) -> list[str]:
    """Return the names of the modules of neck and heads to checkpoint, for ``CheckpointModulesHook``."""
    present = dict(model.named_modules())
    found = []
    for head in HEADS:
        inside = [f'{head}.{name}' for name in INSIDE]
        parts = inside if all(part in present for part in inside) else [head]
        found += [name for part in parts if part in present for name in members(present[part], part)]
    return [
        name for name in found if any(True for _ in present[name].parameters())
    ]  # a pooling neck has no activations to save


def early_heads(model: nn.Module) -> list[str]:
    """Return the names of the heads for ``EarlyLossHook``."""
    present = dict(model.named_modules())
    return [name for name in EARLY if hasattr(present.get(name), 'loss_by_feat')]


def members(module: nn.Module, name: str) -> list[str]:
    """Return the name of a module, or the names of a list's members."""
    return [f'{name}.{member}' for member in range(len(module))] if isinstance(module, nn.ModuleList) else [name]
