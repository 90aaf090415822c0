import pytest
import torch
import torch.distributed as dist
from mmengine.registry import RUNNERS
from runners import coco_runner_config, runner
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard


@pytest.fixture
def one_rank(tmp_path):
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('options', [True, {}, dict(backend='inductor')])
def test_compile(tmp_path, options):
    config = coco_runner_config(tmp_path)
    config.compile = options
    with pytest.raises(ValueError, match='remove compile from the config'):
        runner(config).train()


def test_flexible_runner(tmp_path):
    config = coco_runner_config(tmp_path)
    config.update(runner_type='FlexibleRunner', strategy=dict(type='SingleDeviceStrategy'))
    with pytest.raises(ValueError, match='remove runner_type and strategy'):
        RUNNERS.build(config).train()


def test_fsdp(tmp_path, one_rank):
    run = runner(coco_runner_config(tmp_path))
    run.model.backbone.layer2 = FullyShardedDataParallel(run.model.backbone.layer2, device_id=torch.device('cpu'))
    with pytest.raises(ValueError, match='FSDP shards parameters'):
        run.train()


def test_fsdp2(tmp_path, one_rank):
    run = runner(coco_runner_config(tmp_path))
    fully_shard(run.model.neck, mesh=torch.distributed.init_device_mesh('cpu', (1,)))
    with pytest.raises(ValueError, match='FSDP shards parameters'):
        run.train()


@pytest.mark.parametrize('counts', [1, 2])
def test_static_graph_with_accumulation(tmp_path, one_rank, counts):
    config = coco_runner_config(tmp_path)
    config.optim_wrapper.accumulative_counts = counts
    run = runner(config)
    run.model = torch.nn.parallel.DistributedDataParallel(run.model, static_graph=True)
    from manpp_mm.hooks.unsupported import refuse_unsupported

    run.optim_wrapper = run.build_optim_wrapper(run.optim_wrapper)
    if counts == 1:
        refuse_unsupported(run)
    else:
        with pytest.raises(ValueError, match='static_graph=True cannot accumulate'):
            refuse_unsupported(run)
