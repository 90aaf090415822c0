"""Loading of checkpoints into a local backbone."""

from typing import Any

from mmengine.logging import print_log

from .trunk import Trunk

PREFIX = 'auxiliary.'
"""The prefix of everything that a local backbone adds to its parent."""


class TrunkState(Trunk):
    """A mixin that loads checkpoints of the parent and of block-local training."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._auxiliary_ready = False
        self._absent_keys: set[str] = set()
        self.register_load_state_dict_post_hook(_forgive_absent_auxiliary)

    def sync_auxiliary(self) -> bool:
        """Copy the trunk's units into the branches, once, unless a checkpoint contained the branches' weights.

        Returns:
            Whether the branches were copied now.
        """
        if self._auxiliary_ready or not len(self.auxiliary):
            return False
        pairs = zip(self.auxiliary, self.copied_units(), strict=True)
        copied = [network.branches.sync(units) for network, units in pairs]
        self._auxiliary_ready = True
        return any(copied)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        added = prefix + PREFIX
        own = {added + name: value.shape for name, value in self.auxiliary.state_dict().items()}
        found = {name: value.shape for name, value in state_dict.items() if name.startswith(added)}
        if found and self.cuts and not len(self.auxiliary):
            # state_dict is a copy: load_state_dict creates one for each module.
            for name in found:
                del state_dict[name]
            print_log(
                f'The auxiliary networks in the checkpoint ({len(found)} entries under {added!r}) are ignored: '
                "gradient='exact' has none.",
                logger='current',
            )
            found = {}
        # Other shapes in projections and heads (other classes) are reported like those of any module; only branches and
        # cuts are checked here.
        differing = sorted(
            name
            for name in {**own, **found}
            if name not in own or name not in found or ('.branches.' in name and own[name] != found[name])
        )
        if found and differing:
            raise RuntimeError(
                f'the checkpoint was trained with other cuts or another auxiliary network: {len(differing)} of its '
                f'entries under {added!r} differ from this config ({", ".join(differing[:3])}, ...). Use the cuts and '
                f'auxiliary of its own config, or remove the entries under {added!r} to start the auxiliary networks '
                'from the trunk.'
            )
        self._absent_keys = set() if found else set(own)
        self._auxiliary_ready = bool(found)
        self.forget_blocks()
        super()._load_from_state_dict(state_dict, prefix, *args)


def _forgive_absent_auxiliary(backbone: TrunkState, incompatible_keys: Any) -> None:
    """Report a checkpoint without auxiliary networks in one line instead of one line per parameter."""
    missing = incompatible_keys.missing_keys
    absent = [name for name in missing if name in backbone._absent_keys]
    if absent:
        missing[:] = [name for name in missing if name not in backbone._absent_keys]
        print_log(
            f'The checkpoint has only the trunk: in the auxiliary networks of blocks 0 to {len(backbone.cuts) - 1}, '
            'branches start as copies of it (unless they start independently), heads from their own initialization.',
            logger='current',
        )
