"""The reference loop: its ends, memory that runs out, targets of all kinds."""

import pytest
import torch
from controller.example_training import (
    loss_of,
    losses_of,
    run,
    stream_of,
    weights,
)
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset
from training.example_runs import made, rows

from rightbatch.errors import InputError
from rightbatch.training import (
    Until,
    train,
)


def test_it_makes_the_updates_of_the_loop_written_out():
    one, other = made(), made()
    run(one, losses_of, max_steps=9)
    end = train(other, losses_of, until=Until(max_steps=9))
    assert (end.status, end.step, end.examples) == ("finished", 9, other.examples)
    assert rows(one.records) == rows(other.records)
    assert torch.equal(weights(one.model), weights(other.model))


@pytest.mark.parametrize(
    ("until", "steps"),
    [
        (Until(epochs=1), 16),
        (Until(max_examples=20), 4),
        (Until(max_steps=3, epochs=9), 3),
        (Until(max_seconds=1e-9), 1),
    ],
)
def test_training_ends_at_the_first_end(until, steps):
    assert train(made(), losses_of, until=until).step == steps


def test_on_update_sees_every_record_and_may_stop():
    seen = []

    def stop(record):
        seen.append(record.step)
        return record.step == 4

    assert train(made(), losses_of, until=Until(epochs=9), on_update=stop).status == (
        "stopped"
    )
    assert seen == [1, 2, 3, 4]


def test_a_lost_loss_ends_training_and_says_where_it_is_back():
    controller = made()

    def loss(model, batch):
        return loss_of(model, batch) * (float("nan") if controller.step == 3 else 1)

    end = train(controller, loss, until=Until(epochs=9))
    assert end.status == "diverged"
    assert "training is lost at update 4" in end.said[0]


def test_memory_that_runs_out_makes_passes_smaller_and_never_the_batch():
    one, other = made((32,)), made((32,))

    def small(model, batch):
        if len(batch[0]) > 8:
            raise RuntimeError("not enough memory: you tried to allocate 9 bytes")
        return losses_of(model, batch)

    train(one, small, until=Until(max_steps=5))
    train(other, losses_of, until=Until(max_steps=5))
    torch.testing.assert_close(weights(one.model), weights(other.model))
    assert {record.batch_size for record in one.records} == {32}
    assert {record.micro_batch_size for record in one.records} == {8}


def test_any_other_failure_of_the_loss_goes_on_its_way():
    def failing(model, batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        train(made(), failing, until=Until(max_steps=1))


# Targets and losses that others crashed on --------------------------------------------


def targets(kind, count=40):
    generator = torch.Generator().manual_seed(0)
    return {
        "integers": torch.randint(3, (count,), generator=generator),
        "numbers": torch.randn(count, generator=generator).double(),
        "vectors": torch.randn(count, 3, generator=generator).double(),
        "labels": torch.randint(2, (count, 3), generator=generator).double(),
    }[kind]


def plain_loss(model, batch):
    return functional.mse_loss(model(batch[0]).mean(1), batch[1], reduction="none")


class NamelessLoss(nn.Module):
    """A module, without `__name__`."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, model, batch):
        losses = self.inner(model(batch[0]), batch[1])
        return losses if losses.ndim == 1 else losses.mean(1)


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("integers", NamelessLoss(nn.CrossEntropyLoss(reduction="none"))),
        ("numbers", plain_loss),
        ("vectors", NamelessLoss(nn.MSELoss(reduction="none"))),
        ("labels", NamelessLoss(nn.BCEWithLogitsLoss(reduction="none"))),
    ],
)
def test_targets_of_all_kinds_train(kind, loss):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 5, generator=generator).double()
    controller = made((4, 8, 16), stream=stream_of(TensorDataset(x, targets(kind))))
    end = train(controller, loss, until=Until(epochs=30))
    assert end.status == "finished"
    losses = [record.loss for record in controller.records]
    assert sum(losses[-20:]) < sum(losses[:20])


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({}, "an end must be given"),
        ({"epochs": 0}, "epochs"),
        ({"max_steps": -1}, "max_steps"),
        ({"max_seconds": float("nan")}, "max_seconds"),
    ],
)
def test_ends_are_positive_and_there_is_one(settings, match):
    with pytest.raises(InputError, match=match):
        Until(**settings)
