"""Updates end where their epoch does, and go without what is not there."""

import pytest
import torch
from controller.example_training import (
    data,
    loss_of,
    net,
    weights,
)
from integrations.example_lightning import (
    EXAMPLES,
    QUIET,
    Net,
    by_step,
    fitted,
    loader_of,
)
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, IterableDataset

from rightbatch.integrations.lightning import BatchSizeCallback
from rightbatch.policies import (
    Constant,
)

pytestmark = [pytest.mark.filterwarnings(one) for one in QUIET]


def test_the_last_update_of_an_epoch_is_what_is_left_of_it(tmp_path):
    callback = BatchSizeCallback(Constant(batch_size=20), lr_rule="none")
    fitted(tmp_path, callback, max_epochs=2, limit_train_batches=12)
    sizes = [record.batch_size for record in callback.records]
    assert sizes == [20, 20, 8] * 2
    assert [record.epoch for record in callback.records][2::3] == [1.0, 2.0]


def test_max_steps_counts_updates(tmp_path):
    callback = BatchSizeCallback(Constant(batch_size=12))
    module = fitted(tmp_path, callback, max_epochs=-1, max_steps=11)
    assert module.trainer.global_step == len(callback.records) == 11
    fitted(tmp_path, callback, max_epochs=None, fast_dev_run=2)
    assert [record.batch_size for record in callback.records] == [8]


class Stream(IterableDataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return iter(self.dataset)


def test_a_loader_without_length_ends_where_it_ends(tmp_path):
    dataset = data(46)
    callback = BatchSizeCallback(Constant(batch_size=20), lr_rule="none")
    loader = DataLoader(Stream(dataset), batch_size=4)
    module = fitted(tmp_path, callback, loader=loader, max_epochs=2)
    sizes = [record.batch_size for record in callback.records]
    assert sizes == [20, 20, 6] * 2
    assert callback.records[0].epoch is None
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for batch in DataLoader(dataset, batch_size=20):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
    torch.testing.assert_close(weights(module.net), weights(model))


NONE = pytest.mark.filterwarnings("ignore:`training_step` returned `None`")


@NONE
@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_a_micro_batch_without_a_loss_is_left_out_of_its_update(tmp_path, left_out):
    class Choosy(Net):
        def training_step(self, batch, batch_idx):
            if batch_idx % 3 == left_out:
                return None
            return super().training_step(batch, batch_idx)

    dataset = data(24)
    callback = BatchSizeCallback(Constant(batch_size=12), lr_rule="none")
    module = fitted(
        tmp_path, callback, module=Choosy(), loader=loader_of(dataset), max_epochs=1
    )
    assert [record.batch_size for record in callback.records] == [8, 8]
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    batches = [*loader_of(dataset)]
    for start in (0, 3):
        kept = [batches[start + place] for place in range(3) if place != left_out]
        optimizer.zero_grad()
        loss_of(model, [torch.cat(part) for part in zip(*kept, strict=True)]).backward()
        optimizer.step()
    torch.testing.assert_close(weights(module.net), weights(model))


@NONE
def test_an_update_without_any_loss_is_none(tmp_path):
    class Empty(Net):
        def training_step(self, batch, batch_idx):
            return None if batch_idx < 3 else super().training_step(batch, batch_idx)

    callback = BatchSizeCallback(Constant(batch_size=12))
    module = Empty(schedule=by_step(StepLR, step_size=1, gamma=0.5))
    fitted(tmp_path, callback, module=module, loader=loader_of(data(36)), max_epochs=1)
    assert [record.examples for record in callback.records] == [12, 24]


def test_an_epoch_that_is_broken_off_takes_its_update_along(tmp_path):
    class Short(Net):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 4 else None

    callback = BatchSizeCallback(Constant(batch_size=12), sensing=EXAMPLES)
    module = Short()
    fitted(tmp_path, callback, module=module, max_epochs=2)
    assert [record.examples for record in callback.records] == [12, 24]


class Gaps(DataLoader):
    """There is nothing in one place."""

    gap = 0

    def __iter__(self):
        for place, batch in enumerate(super().__iter__()):
            yield None if place == self.gap else batch


@pytest.mark.filterwarnings("ignore:train_dataloader yielded None")
@pytest.mark.parametrize(
    ("gap", "sizes"), [(3, [12, 12, 8]), (4, [12, 8, 12]), (5, [12, 12])]
)
def test_a_gap_makes_an_update_smaller_or_where_it_would_step_ends_it(
    tmp_path, gap, sizes
):
    callback = BatchSizeCallback(Constant(batch_size=12), sensing=EXAMPLES)
    loader = Gaps(data(36), batch_size=4)
    loader.gap = gap
    fitted(tmp_path, callback, loader=loader, max_epochs=1)
    assert [record.batch_size for record in callback.records] == sizes
