import torch
from helpers import build, detection_batch, detector_config, segmentation_batch, segmentor_config


def test_a_detector_and_a_segmentor_train_in_one_process():
    detector, segmentor = build(detector_config()), build(segmentor_config())
    for model, batch in ((detector, detection_batch), (segmentor, segmentation_batch)) * 2:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        loss, log = model.parse_losses(model(**batch(model), mode='loss'))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert torch.isfinite(loss)
        assert any(name.startswith('block1.') for name in log)
