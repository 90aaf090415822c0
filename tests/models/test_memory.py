import torch
from helpers import build, detection_batch, detector_config
from torch.utils._pytree import tree_leaves

from manpp_mm.profiling import LiveBytes


def test_no_tensor_of_a_blocks_graph_is_alive_when_the_next_block_starts():
    model = build(detector_config())
    backbone, data = model.backbone, detection_batch(model, size=128)
    run_block, entries, left = backbone._run_block, [], []

    def watched(block, x):
        kept = [g for kept in backbone._gradients for g in kept.gradients]
        kept += tree_leaves([v if isinstance(v, tuple) else vars(v) for v in backbone._shared.values()])
        kept += [points for network in backbone.auxiliary for points in network.heads[0]._kept_points.values()]
        entries.append((live.current, x, kept))
        outs = run_block(block, x)
        features[block] = [out.detach() for out in outs]
        return outs

    features: dict[int, list[torch.Tensor]] = {}
    backbone._run_block = watched
    kept = [*model.parameters(), *model.buffers(), data['inputs']]
    with LiveBytes(exclude=kept) as live:
        model.neck.register_forward_pre_hook(lambda *_: left.append(dict(backbone._shared)))
        model(**data, mode='loss')
    assert left == [{}]  # no targets while neck and heads run
    assert len(entries) == 3
    for block, (current, *_) in enumerate(entries):
        # Features for the neck; gradients to deliver, targets and points that the auxiliary networks share, which
        # this test has kept.
        held = [f for earlier in range(block) for f in features[earlier]]
        held += [t for _, _, kept in entries[: block + 1] for t in kept]
        allowed = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
        logged = 64 * 3 * block  # scalars in the log
        assert 0 <= current - sum(allowed.values()) <= logged, block
    assert entries[1][2], 'block 0 kept gradients'


def test_local_training_needs_less_than_end_to_end():
    from manpp_mm.profiling import measure

    config = detector_config(depth=50)
    config.model.neck.in_channels = [64, 128, 256, 512]
    found = measure(config, ['end_to_end', 'local'], 2, (256, 256), repeats=0)
    assert found['local'].peak_bytes < 0.8 * found['end_to_end'].peak_bytes
