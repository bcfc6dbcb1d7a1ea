"""What a type checker makes of a loop under a controller."""

from typing import assert_type

import torch
from torch import nn
from torch.utils.data import TensorDataset

from rightbatch import BatchSizeController, MicroBatchStream, train
from rightbatch.controller import UpdateRecord
from rightbatch.policies import Clip, GeoDamp, named_policy
from rightbatch.sampler import ForwardPass
from rightbatch.simulation import Trace
from rightbatch.training import TrainingEnd, Until

model = nn.Linear(2, 1)
stream = MicroBatchStream(TensorDataset(torch.zeros(8, 2)), 2)
controller = BatchSizeController(
    model,
    torch.optim.SGD(model.parameters(), lr=0.1),
    Clip(GeoDamp(initial_batch_size=2, factor=2, delay=1), high=8),
    stream,
)
for update in controller.updates(epochs=1):
    for part in update:
        assert_type(part, ForwardPass)
        update.backward(model(part.batch[0]).square().mean())
    update.step()
    assert_type(update.batch_size, int)
assert_type(controller.records, list[UpdateRecord])
assert_type(controller.trace(), Trace)
assert_type(stream.served(12.5), int)
BatchSizeController(
    model,
    torch.optim.SGD(model.parameters(), lr=0.1),
    named_policy("padadamp:rate=.1", initial_batch_size=4),
    stream,
)


def loss(model: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return model(batch[0]).square().mean()


assert_type(train(controller, loss, until=Until(epochs=2)), TrainingEnd)
