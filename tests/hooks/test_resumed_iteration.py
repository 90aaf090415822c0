"""A training that goes on with another batch size."""

from runners import coco_runner_config, renamed, runner

from manpp_mm.hooks.resumed_iteration_hook import ResumedIterationHook


def test_iterations_are_those_of_the_new_batch_size(tmp_path):
    config = coco_runner_config(tmp_path)
    config.train_dataloader.batch_size = 1
    config.train_cfg.max_epochs = 1
    runner(config).train()  # four iterations
    resumed = renamed(config, resume=True)
    resumed.train_dataloader.batch_size = 2
    resumed.train_cfg.max_epochs = 3
    run = runner(resumed)
    run.register_hook(ResumedIterationHook())
    run.train()
    assert (run.epoch, run.iter, run.max_iters) == (3, 6, 6)
