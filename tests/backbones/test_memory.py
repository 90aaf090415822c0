import pytest
from helpers import build, cut_point, detection_batch, detector_config
from torch.utils._pytree import tree_leaves

from manpp_mm.memory import LiveBytes, measure


@pytest.mark.parametrize('lateral', [False, True])
def test_no_tensor_of_a_blocks_graph_is_alive_when_the_next_block_starts(lateral):
    model = build(detector_config(lateral_gradient=lateral))
    backbone, data = model.backbone, detection_batch(model, size=128)
    entries, features, left = [], [], []

    def enter(module, args):
        step = backbone.step
        kept = [g for delivered in step.gradients for g in delivered.gradients]
        kept += tree_leaves([v if isinstance(v, tuple) else vars(v) for v in step.shared.values()])
        kept += [points for network in backbone.auxiliary for points in network.heads[0].kept_points.values()]
        # Features for the neck so far, what the block starts from, and what this test itself has kept.
        entries.append((live.current, [*features, args[0].detach()], kept))

    backbone.conv1.register_forward_pre_hook(enter)
    for cut in ((2, 0), (3, 0)):
        cut_point(backbone, cut)[0].register_forward_pre_hook(enter)
    for end in ((0, 1), (1, 1), (2, 1)):
        module = cut_point(backbone, end)[0]
        module.register_forward_hook(lambda module, args, output: features.append(output.detach()))
        if lateral:  # kept, because backward runs the unit again
            module.register_forward_pre_hook(lambda module, args: features.append(args[0].detach()))
    kept = [*model.parameters(), *model.buffers(), data['inputs']]
    with LiveBytes(exclude=kept) as live:
        model.neck.register_forward_pre_hook(lambda *_: left.append(dict(backbone.step.shared)))
        model(**data, mode='loss')
    assert left == [{}]  # no targets while neck and heads run
    assert len(entries) == 3
    for block, (current, alive, _) in enumerate(entries):
        held = alive[:-1] + [t for _, _, kept in entries[: block + 1] for t in kept]
        allowed = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
        logged = 64 * 3 * block  # scalars in the log
        assert 0 <= current - sum(allowed.values()) <= logged, block
    assert entries[1][2], 'block 0 kept gradients'


def test_local_training_needs_less_than_end_to_end():
    config = detector_config(depth=50)
    config.model.neck.in_channels = [64, 128, 256, 512]
    found = measure(config, ['end_to_end', 'local'], 2, (256, 256), repeats=0)
    assert found['local'].peak_bytes < 0.8 * found['end_to_end'].peak_bytes
