"""The local backbone of a config is known by its class, whatever it is called and however it is written."""

from pathlib import Path

import pytest
import torch
from helpers import SWIN, build, detector_config, segmentor_config, with_swin
from mmdet.models import ResNet
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.models import ResNet as SegResNet
from runners import coco_runner_config, runner

from manpp_mm.auxiliary.detection import DetectionAuxiliary
from manpp_mm.backbones import LocalResNetMixin, local_class, mode_of, plain_model
from manpp_mm.comparison import parse_variant, variant_config
from manpp_mm.memory import TrainingStep
from manpp_mm.mode import MODES, Mode
from manpp_mm.publish import publish
from manpp_mm.registry.mmdet import LocalResNet, LocalSwinTransformer


@pytest.fixture(autouse=True, scope='module')
def renamed_backbone():
    class Blockwise(LocalResNet):
        """A user's own, of another name."""

    MODELS.register_module(module=Blockwise)
    yield Blockwise
    MODELS.module_dict.pop('Blockwise')


NAMES = {
    'name': 'LocalResNet',
    'name with scope': 'mmdet.LocalResNet',
    'class': None,
    'import path': 'manpp_mm.registry.mmdet.LocalResNet',
    'own class by name': 'Blockwise',
}


def new_style(config: Config, folder: Path) -> Config:
    """A config as MMEngine's Python configs are: the type is a class."""
    text = config.pretty_text
    assert text.count("type='LocalResNet'") == 1
    path = folder / 'new_style.py'
    path.write_text(
        'from manpp_mm.registry.mmdet import LocalResNet\n' + text.replace("type='LocalResNet'", 'type=LocalResNet')
    )
    found = Config.fromfile(path)
    assert found.model.backbone.type is LocalResNet
    return found


@pytest.mark.parametrize('written', NAMES)
def test_however_the_type_is_written(written, renamed_backbone, tmp_path):
    config = detector_config(type=NAMES[written]) if written != 'class' else new_style(detector_config(), tmp_path)
    expected = renamed_backbone if 'own' in written else LocalResNet
    assert local_class(config) is expected
    assert expected.plain is ResNet
    assert str(mode_of(config)) == 'local'
    before = config.pretty_text
    plain = plain_model(config)
    assert config.pretty_text == before
    assert not {'cuts', 'auxiliary', 'local_blocks', 'gradient', 'memory_budget'} & plain.backbone.keys()
    init_default_scope('mmdet')
    assert type(MODELS.build(plain).backbone) is ResNet
    assert plain.backbone.type in ('ResNet', 'mmdet.ResNet', 'mmdet.models.backbones.resnet.ResNet')
    assert TrainingStep(config, 'local', 1, (64, 64)).peak_bytes() > 0
    assert variant_config(config, parse_variant('end_to_end'), 0.25).model.backbone.type == plain.backbone.type


def test_what_is_no_local_backbone():
    assert local_class(detector_config(type='ResNet')) is None
    assert local_class(detector_config(type='LocalNoNet')) is None  # a name that begins so is not enough
    assert local_class(Config(dict())) is None
    with pytest.raises(ValueError, match="model.backbone.type='ResNet' is not a local backbone of manpp_mm"):
        plain_model(detector_config(type='ResNet'))
    assert local_class(with_swin(detector_config())) is LocalSwinTransformer
    assert local_class(with_swin(segmentor_config())) is not LocalSwinTransformer  # MMSegmentation's
    assert plain_model(with_swin(segmentor_config())).backbone.type == 'SwinTransformer'


@pytest.mark.parametrize(
    ('backbone', 'mode'),
    [
        (dict(), 'local'),
        (dict(with_cp=True), 'local_checkpointed'),
        (dict(gradient='exact'), 'exact'),
        (dict(gradient='exact', with_cp=True), 'exact_checkpointed'),
    ],
)
def test_modes_of_configs(backbone, mode):
    assert str(mode_of(detector_config(**backbone))) == mode
    assert str(mode_of(detector_config(type='ResNet', with_cp=True))) == 'end_to_end_checkpointed'


@pytest.mark.parametrize('written', ['class', 'own class by name', 'swin'])
def test_publishing(tmp_path, written):
    config = coco_runner_config(tmp_path)
    if written == 'swin':
        with_swin(config)
    elif written == 'class':
        config = new_style(config, tmp_path)
    else:
        config.model.backbone.type = NAMES[written]
    config.default_hooks.checkpoint.update(interval=2)
    # The module that defines the backbone imports this package, and a published file must not.
    own = [__name__] if 'own' in written else []
    config.custom_imports = dict(imports=['manpp_mm', *own], allow_failed_imports=False)
    config.optim_wrapper.paramwise_cfg = dict(custom_keys={'branches.learnable.block.norm': dict(decay_mult=0.0)})
    run = runner(config)
    run.train()
    path = publish(Path((tmp_path / 'work/last_checkpoint').read_text()), tmp_path / 'model.pth')
    found = torch.load(path, weights_only=True)
    text = found['meta']['cfg']
    assert 'manpp' not in text
    assert 'custom_imports' not in text
    assert 'branches' not in text
    assert 'Blockwise' not in text
    plain = build(Config.fromstring(text, '.py'), hooked=False)
    plain.load_state_dict(found['state_dict'])  # strict
    assert type(plain.backbone).__name__ == ('SwinTransformer' if written == 'swin' else 'ResNet')
    assert SWIN['type'] not in text


def test_a_twin_that_its_name_would_not_find():
    """MMSegmentation's ResNet in MMDetection's registry: the name alone is MMDetection's own."""
    init_default_scope('mmdet')

    class Borrowed(LocalResNetMixin, SegResNet):
        auxiliary_type = DetectionAuxiliary

    MODELS.register_module(module=Borrowed)
    try:
        plain = plain_model(detector_config(type='Borrowed'))
        assert type(MODELS.build(plain.backbone)) is SegResNet
    finally:
        MODELS.module_dict.pop('Borrowed')
    with pytest.raises(
        ValueError, match="'LocalNoNet' is not a local backbone of manpp_mm, and this name is not registered"
    ):
        plain_model(detector_config(type='LocalNoNet'))


def test_what_a_mode_may_be():
    assert str(Mode.parse('exact_checkpointed_heads_checkpointed')) == 'exact_checkpointed_heads_checkpointed'
    assert [str(Mode.parse(str(mode))) for mode in MODES] == [str(mode) for mode in MODES]
    for make in (lambda: Mode('exakt'), lambda: mode_of(detector_config(gradient='exakt'))):
        with pytest.raises(
            ValueError, match="trains in one of the modes end_to_end, exact, local, frozen, not 'exakt'"
        ):
            make()
    with pytest.raises(
        ValueError, match="unknown mode 'lokal', choose from end_to_end, end_to_end_checkpointed, exact"
    ):
        Mode.parse('lokal')
