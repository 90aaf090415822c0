import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub


def test_the_message_hub_loads_with_weights_only(tmp_path):
    hub = MessageHub.get_instance('test_checkpoint')
    for value in (1.5, np.float32(2.5), np.float64(3.5)):
        hub.update_scalar('train/loss', value)
    for name, value in dict(a=np.float32(1), b=np.float64(2), c=np.int64(3), d=np.arange(3.0)).items():
        hub.update_info(name, value)
    torch.save(dict(message_hub=hub.state_dict()), tmp_path / 'c.pth')
    loaded = torch.load(tmp_path / 'c.pth', weights_only=True)['message_hub']
    buffer = loaded['log_scalars']['train/loss']
    assert isinstance(buffer, HistoryBuffer)
    assert buffer.current() == 3.5
    assert buffer.statistics('mean') == 2.5
    assert loaded['runtime_info']['c'] == 3


@pytest.mark.skipif(not hasattr(torch.serialization, 'add_safe_globals'), reason='torch has no allow-list')
def test_nothing_else_is_reached_through_getattr(tmp_path):
    class Reach:
        def __reduce__(self):
            return getattr, (HistoryBuffer, '__init__')

    torch.save(Reach(), tmp_path / 'c.pth')
    with pytest.raises(TypeError, match="asks for the attribute '__init__'"):
        torch.load(tmp_path / 'c.pth', weights_only=True)
