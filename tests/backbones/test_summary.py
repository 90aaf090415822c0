"""The table of blocks that the log shows at the start."""

from helpers import build, detector_config

from manpp_mm.backbones.summary import block_table


def table(**backbone):
    model = build(detector_config(**backbone))
    return model.backbone, block_table(model.backbone).splitlines()


def test_blocks_units_and_parameters():
    backbone, lines = table(cuts=[(1, 1), (2, 0)], frozen_stages=1)
    assert lines[0] == 'LocalResNet trains block by block'
    blocks = [line.split('  ') for line in lines[2:-1]]
    assert [[part.strip() for part in line if part.strip()][1] for line in blocks] == [
        '(0, 0) to (1, 1)', '(2, 0)', '(2, 1) to (3, 1)'
    ]  # fmt: skip
    auxiliary = [sum(p.numel() for p in network.parameters()) for network in backbone.auxiliary]
    assert lines[2].endswith(f'  PaddedFCOSHead, {auxiliary[0] / 1e6:.2f} M')
    assert lines[4].endswith("  none: the model's neck and heads")
    trunk = sum(p.numel() for name, p in backbone.named_parameters() if not name.startswith('auxiliary.'))
    assert lines[-1] == f'trunk {trunk / 1e6:.2f} M parameters, auxiliary networks {sum(auxiliary) / 1e6:.2f} M'
    for line, block in zip(lines[2:-1], backbone.blocks(), strict=True):
        units = [unit.cut for unit in block.units]
        modules = [getattr(backbone, f'layer{stage + 1}')[unit] for stage, unit in units]
        modules += [backbone.conv1, backbone.bn1] if units[0] == (0, 0) else []
        parameters = [p for module in modules for p in module.parameters()]
        every = sum(p.numel() for p in parameters)
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        assert f' {every / 1e6:.2f} M   {trained / 1e6:.2f} M  ' in line


def test_exact_gradients():
    _, lines = table(gradient='exact')
    assert lines[0] == 'LocalResNet trains with exact gradients'
    assert lines[2].endswith('  none')
    assert lines[-1].endswith('auxiliary networks 0.00 M')
