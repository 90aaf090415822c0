"""No variant is advantaged: each differs from end-to-end training in the stated keys alone."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from processes import ROOT
from runners import coco_runner_config, segmentation_runner_config

from manpp_mm.comparison import KINDS, Cell, parse_variant, run_grid, variant_config
from manpp_mm.comparison.grid import cell_config
from manpp_mm.comparison.variants import stages_to_freeze
from manpp_mm.compat.config_prefix import read_config
from manpp_mm.hooks import GradientSwitchHook

FROZEN = ('frozen', 'front_frozen')
LOCAL = ('manpp', 'man', 'dgl', 'learnable', 'momentum', 'manpp_k3', 'manpp_exact_start', 'dgl_exact_end')
STATED = {f'model.backbone.{key}' for key in ('type', 'local_blocks', 'cuts', 'auxiliary', 'gradient', 'memory_budget')}
STATED.add('model.backbone.lateral_gradient')
STATED |= {'custom_hooks', 'experiment_name', 'default_hooks.scalars', 'default_hooks.scalars.type'}


def flat(value, prefix=''):
    if isinstance(value, dict):
        return {k: v for name, item in value.items() for k, v in flat(item, f'{prefix}.{name}'.strip('.')).items()}
    return {prefix: value}


def different(a: Config, b: Config) -> set[str]:
    first, second = flat(a.to_dict()), flat(b.to_dict())
    return {key for key in first.keys() | second.keys() if first.get(key, KeyError) != second.get(key, KeyError)}


@pytest.mark.parametrize('make', [coco_runner_config, segmentation_runner_config])
@pytest.mark.parametrize('name', [*LOCAL, *FROZEN])
def test_stated_keys_alone_differ(tmp_path, make, name):
    base = make(tmp_path, validate=True)
    base.custom_hooks = [*base.custom_hooks, dict(type='ReproducibleHook')]
    base.default_hooks.scalars = dict(type='LocalScalarsHook')
    base.env_cfg = dict(cudnn_benchmark=True)
    base.model.backbone.lateral_gradient = True
    before = base.pretty_text
    whole, own = (cell_config(base, Cell(parse_variant(v), 3), 0.25) for v in ('end_to_end', name))
    assert base.pretty_text == before
    keys = different(whole, own)
    auxiliary = {key for key in keys if key.startswith('model.backbone.auxiliary.')}
    stated = STATED | ({'model.backbone.frozen_stages'} if name in FROZEN else auxiliary)
    assert keys <= stated
    assert whole.randomness == own.randomness == dict(seed=3)
    assert not whole.env_cfg.cudnn_benchmark
    assert [hook['type'] for hook in whole.custom_hooks] == ['ReproducibleHook']
    kept = {hook['type'] for hook in own.custom_hooks}
    assert (whole.default_hooks.scalars, own.default_hooks.scalars is None) == (None, name in FROZEN)
    switch = {'GradientSwitchHook'} if '_exact_' in name else set()
    local = set() if name in FROZEN else {'LocalLearningHook', 'MomentumHook'}
    assert kept == {'ReproducibleHook'} | local | switch


def test_what_the_names_say(tmp_path):
    base = segmentation_runner_config(tmp_path)

    init_default_scope('mmseg')

    def config(name):
        return variant_config(base, parse_variant(name), 0.25)

    base.model.backbone.auxiliary.scaling = 1
    assert config('manpp').model.backbone.auxiliary.scaling == 'learnable'  # whatever the base is
    assert config('man').model.backbone.auxiliary.scaling == 1
    for name in KINDS:
        MODELS.build(config(name).model)
    assert config('dgl').model.backbone.auxiliary.branches == []
    assert config('momentum_k2').model.backbone.auxiliary.branches == ['momentum']
    assert (config('momentum_k2').model.backbone.local_blocks, config('manpp_k2').model.backbone.cuts) == (2, None)
    assert config('frozen').model.backbone.frozen_stages == 4
    assert config('end_to_end').model.backbone.type == 'ResNetV1c'
    for cuts, stages in (([(1, 0)], 1), ([(0, 0), (1, 1)], 2), ([(0, 0)], 0), ([], -1)):
        base.model.backbone.cuts = cuts
        front = config('front_frozen').model.backbone
        assert (front.type, front.frozen_stages) == ('ResNetV1c', stages)
    options = 'manpp+model.backbone.with_cp=True+optim_wrapper.optimizer.lr=0.5'
    labelled = parse_variant(f'low:{options}')
    assert (labelled.name, labelled.definition, parse_variant(options).name) == ('low', options, options)
    assert labelled.options == parse_variant(options).options
    assert config(options).model.backbone.with_cp is True
    assert config(options).optim_wrapper.optimizer.lr == 0.5
    assert Cell(parse_variant("dgl+a.b={'x': 1}"), 3).name == 'dgl+a.b=-x-1-_seed3'  # names files
    for name, stretch in (('manpp_exact_start', (0.0, 0.25)), ('manpp_exact_end', (0.75, 1.0))):
        (hook,) = (hook for hook in config(name).custom_hooks if hook['type'] == 'GradientSwitchHook')
        built = GradientSwitchHook(**{key: value for key, value in hook.items() if key != 'type'})
        assert (built.begin, built.end) == stretch


def test_what_cannot_be_compared(tmp_path):
    base = segmentation_runner_config(tmp_path)
    with pytest.raises(ValueError, match=r'end_to_end.*: max_iters=.*_delete_'):
        variant_config(base, parse_variant('end_to_end+train_cfg.max_iters={"x":3}'), 0.25)
    base.model.backbone.update(cuts=None, local_blocks='auto')
    with pytest.raises(ValueError, match='a comparison needs fixed cuts'):
        variant_config(base, parse_variant('manpp'), 0.25)
    base.model.backbone.type = 'ResNet'
    with pytest.raises(ValueError, match="'ResNet' is not a local backbone"):
        variant_config(base, parse_variant('manpp'), 0.25)


def test_cells_of_one_name(tmp_path):
    cells = [Cell(parse_variant(name), 0) for name in ('one:manpp', 'one:dgl', 'manpp')]
    with pytest.raises(ValueError, match='one_seed0 occurs twice in the grid: give the variants different labels'):
        run_grid(tmp_path / 'config.py', cells, tmp_path, tmp_path)


NO_VARIANTS = ('nothing', 'frozen_k3', 'front_frozen_k2', 'end_to_end_exact_start', 'manpp_exact', 'manpp+lr')


@pytest.mark.parametrize('name', NO_VARIANTS)
def test_what_is_no_variant(name):
    with pytest.raises(ValueError, match='is not a variant: use one of end_to_end, frozen, front_frozen, manpp'):
        parse_variant(name)


@pytest.mark.parametrize('path', sorted((ROOT / 'configs/experiments').glob('*.py')), ids=lambda path: path.stem)
def test_the_experiments_configs_build_in_every_variant(path):
    base = Config.fromfile(path)
    init_default_scope(base.default_scope)
    for kind in KINDS:
        config = variant_config(base, parse_variant(kind), 0.25)
        model = MODELS.build(config.model)
        trained = [p for p in model.backbone.parameters() if p.requires_grad]
        assert bool(trained) == (kind != 'frozen')
    # From scratch or nearly all layers train; only the fine-tuned detector keeps stem and layer1.
    fine_tuned = path.stem == 'bccd_faster_rcnn_r50_manpp'
    assert base.model.backbone.get('frozen_stages', -1) == (1 if fine_tuned else -1)


@pytest.mark.parametrize(('kind', 'expected'), [('frozen', 12), ('front_frozen', 9)])
def test_a_vits_layers_are_frozen(kind, expected):
    pytest.importorskip('mmpretrain')
    config = read_config('manpp_mm::vit-tiny_manpp_imagenet.py')
    assert stages_to_freeze(config, kind) == expected
