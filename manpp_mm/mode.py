"""Training modes, as named on the command line and in JSON files."""

from dataclasses import dataclass, replace

BACKBONES = ('end_to_end', 'exact', 'local', 'frozen')
_CHECKPOINTED = '_checkpointed'
_EARLY = '_early_loss'
_HEADS = '_heads_checkpointed'
_OFFLOADED = '_offloaded'


@dataclass(frozen=True)
class Mode:
    """A training mode: how the backbone is trained, and what is done to save memory.

    Attributes:
        backbone: ``'end_to_end'``, ``'exact'`` (the same gradients, blocks checkpointed), ``'local'`` (block by block)
            or ``'frozen'``, which leaves the memory of neck and heads.
        units_checkpointed: Whether each unit of the backbone is checkpointed (``with_cp``).
        early_loss: Whether the RPN's loss becomes a gradient before the RoI head runs.
        heads_spared: The same, and neck and heads are checkpointed.
        offloaded: Whether activations are offloaded to host memory, which needs a GPU.
    """

    backbone: str
    units_checkpointed: bool = False
    early_loss: bool = False
    heads_spared: bool = False
    offloaded: bool = False

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ValueError(f'a backbone trains in one of the modes {", ".join(BACKBONES)}, not {self.backbone!r}')

    @classmethod
    def parse(cls, name: 'str | Mode') -> 'Mode':
        """Parse the name of a mode, such as ``'local_checkpointed'``.

        Raises:
            ValueError: There is no such mode.
        """
        if isinstance(name, Mode):
            return name
        found = next((mode for mode in MODES if str(mode) == name), None)
        if found is None:
            raise ValueError(f'unknown mode {name!r}, choose from {", ".join(map(str, MODES))}')
        return found

    def __str__(self) -> str:
        parts = (
            (self.units_checkpointed, _CHECKPOINTED),
            (self.early_loss and not self.heads_spared, _EARLY),
            (self.heads_spared, _HEADS),
            (self.offloaded, _OFFLOADED),
        )
        return self.backbone + ''.join(name for there, name in parts if there)

    @property
    def local(self) -> bool:
        """Whether the backbone learns block by block."""
        return self.backbone == 'local'

    @property
    def exact(self) -> bool:
        """Whether the backbone's blocks are checkpointed and learn from the task's gradient."""
        return self.backbone == 'exact'

    @property
    def frozen(self) -> bool:
        """Whether the backbone is frozen."""
        return self.backbone == 'frozen'

    @property
    def cut(self) -> bool:
        """Whether the backbone is cut into blocks, and therefore must be a local one."""
        return self.local or self.exact

    def with_units_checkpointed(self, checkpointed: bool = True) -> 'Mode':
        """Return this mode with each unit of the backbone checkpointed, or not."""
        return replace(self, units_checkpointed=checkpointed)

    def with_heads_spared(self) -> 'Mode':
        """Return this mode with neck and heads checkpointed."""
        return replace(self, early_loss=True, heads_spared=True)

    def with_early_loss(self) -> 'Mode':
        """Return this mode with an early loss of the RPN."""
        return replace(self, early_loss=True)

    def with_exact_gradients(self) -> 'Mode':
        """Return a local mode with exact gradients instead; other modes do not change."""
        return replace(self, backbone=EXACT.backbone) if self.local else self


END_TO_END, EXACT, LOCAL, FROZEN = map(Mode, BACKBONES)
GRADIENTS = (LOCAL.backbone, EXACT.backbone)
"""Valid values of ``model.backbone.gradient``."""
_PLAIN = (*(mode for each in (END_TO_END, EXACT, LOCAL) for mode in (each, each.with_units_checkpointed())), FROZEN)
OFFLOADED = replace(END_TO_END, offloaded=True)
MODES = (
    *_PLAIN,
    *(mode.with_early_loss() for mode in _PLAIN),
    *(mode.with_heads_spared() for mode in _PLAIN),
    OFFLOADED,
)
"""All modes that can be measured, in the order in which tools list them."""
USUAL = (
    END_TO_END, END_TO_END.with_units_checkpointed(), EXACT, LOCAL, LOCAL.with_units_checkpointed(), FROZEN
)  # fmt: skip
"""The modes that a benchmark measures by default."""
