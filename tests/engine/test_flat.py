"""The fast update beside the plain loop: one trajectory, whatever the optimizer."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import (
    LBFGS,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    SparseAdam,
)
from torch.optim.lr_scheduler import StepLR

from rightbatch.engine import make_update
from rightbatch.errors import WorkloadError

STEPS = 30


@pytest.fixture(autouse=True)
def one_thread():
    # A second thread for nets this small costs 100 times what it saves on a busy core.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def batches(count: int = STEPS, size: int = 5) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 6, generator=generator),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def loss(model: nn.Module, batch: Any) -> Tensor:
    inputs, labels = batch
    return functional.cross_entropy(model(inputs), labels, reduction="none")


class Rotating(Optimizer):
    """An optimizer nobody knows: its step depends on a parameter's shape."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad / (1e-3 + p.grad.norm()), alpha=group["lr"])


def grouped(parameters: Any, lr: float) -> Optimizer:
    every = list(parameters)
    return SGD(
        [
            {"params": [p for p in every if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in every if p.ndim == 1], "lr": lr / 3},
        ],
        lr=lr,
        momentum=0.5,
    )


def plainly_grouped(parameters: Any, lr: float) -> Optimizer:
    every = list(parameters)
    return SGD([{"params": every[:1]}, {"params": every[1:], "lr": lr / 3}], lr=lr)


def plain_loop(
    model: nn.Module,
    optimizer: Optimizer,
    data: list[Any],
    loss: Callable[[nn.Module, Any], Tensor] = loss,
) -> list[float]:
    """The loop everybody writes."""
    losses: list[float] = []
    for batch in data:
        optimizer.zero_grad()
        mean = loss(model, batch).mean()
        mean.backward()
        optimizer.step()
        losses.append(mean.item())
    return losses


def assert_same_trajectory(
    model: nn.Module,
    make: Callable[[Any, float], Optimizer],
    data: list[Any],
    path: str,
    loss: Callable[[nn.Module, Any], Tensor] = loss,
) -> None:
    twin = copy.deepcopy(model)
    expected = plain_loop(twin, make(twin.parameters(), 0.1), data, loss)
    update = make_update(model, make, loss, 0.1)
    assert update.path == path
    # Rounding alone: float32 sums in another order, grown over the steps.
    assert [update(batch).item() for batch in data] == pytest.approx(expected, rel=1e-4)
    for ours, theirs in zip(
        model.state_dict().values(), twin.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda p, lr: SGD(p, lr=lr), "flat add"),
        (lambda p, lr: SGD(p, lr=1), "flat add"),
        (plainly_grouped, "flat add"),
        (lambda p, lr: SGD(p, lr=lr, momentum=0.9), "flat"),
        (lambda p, lr: SGD(p, lr=lr, momentum=0.9, dampening=0.3), "flat"),
        (lambda p, lr: SGD(p, lr=lr, momentum=0.9, nesterov=True), "flat"),
        (lambda p, lr: SGD(p, lr=lr, weight_decay=0.1), "flat"),
        (lambda p, lr: SGD(p, lr=lr, maximize=True), "flat"),
        (grouped, "flat"),
        (lambda p, lr: Adam(p, lr=lr), "flat"),
        (lambda p, lr: Adam(p, lr=lr, amsgrad=True), "flat"),
        (lambda p, lr: AdamW(p, lr=lr, weight_decay=0.1), "flat"),
        (lambda p, lr: RMSprop(p, lr=lr / 10, momentum=0.5, centered=True), "flat"),
        (lambda p, lr: NAdam(p, lr=lr), "flat"),
        (lambda p, lr: RAdam(p, lr=lr), "flat"),
        (lambda p, lr: Adamax(p, lr=lr), "flat"),
        (lambda p, lr: Adadelta(p, lr=lr), "flat"),
        (lambda p, lr: Adagrad(p, lr=lr), "plain"),
        (Rotating, "plain"),
    ],
)
def test_the_trajectory_is_that_of_the_plain_loop(make, path):
    assert_same_trajectory(mlp(), make, batches(), path)


def test_a_changing_batch_size_keeps_the_trajectory():
    data = [batches(1, size)[0] for size in (1, 7, 7, 2, 512, 1)]
    assert_same_trajectory(mlp(), SGD, data, "flat add")


def test_batch_norms_statistics_and_dropout_are_those_of_the_plain_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    assert_same_trajectory(model, SGD, batches(), "flat add")
    for make in (SGD, Adam):
        ours, theirs = (
            nn.Sequential(nn.Linear(6, 4), nn.Dropout(), nn.Linear(4, 3))
            for _ in range(2)
        )
        theirs.load_state_dict(ours.state_dict())
        torch.manual_seed(3)
        expected = plain_loop(theirs, make(theirs.parameters(), 0.1), batches())
        torch.manual_seed(3)
        update = make_update(ours, make, loss, 0.1)
        assert [float(update(b)) for b in batches()] == pytest.approx(
            expected, rel=1e-4
        )


class Conditional(nn.Module):
    """Uses its second half only for batches of another size than five."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.always = nn.Linear(6, 3)
        self.sometimes = nn.Linear(6, 3)
        self.never = nn.Parameter(torch.ones(4))

    def forward(self, inputs: Tensor) -> Tensor:
        out = self.always(inputs)
        return out if len(inputs) == 5 else out + self.sometimes(inputs)


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (SGD, "flat add"),
        (lambda p, lr: SGD(p, lr=lr, momentum=0.9, weight_decay=0.1), "flat"),
        (lambda p, lr: Adam(p, lr=lr), "flat"),
    ],
)
def test_parameters_that_take_no_part_are_passed_over_as_in_the_plain_loop(make, path):
    data = [*batches(4, 6), *batches(4, 5), *batches(4, 6)]
    model = Conditional()
    del model.never
    assert_same_trajectory(model, make, data, path)
    assert_same_trajectory(Conditional(), make, data, path)


def test_the_flat_path_ends_where_a_gradient_is_missing():
    update = make_update(Conditional(), lambda p, lr: Adam(p, lr=lr), loss, 0.1)
    assert update.path == "flat"
    update(batches(1)[0])
    assert update.path == "plain"


def test_frozen_parameters_stay_and_tied_ones_move_together():
    model = mlp()
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.clone()
    assert_same_trajectory(model, Adam, batches(), "flat")
    assert torch.equal(model[0].weight, frozen)

    torch.manual_seed(0)
    tied = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    tied[2].weight = tied[0].weight
    assert_same_trajectory(tied, SGD, batches(), "flat add")


def embedding_loss(model: nn.Module, batch: Any) -> Tensor:
    return model(batch[1]).square().sum(1)


@pytest.mark.parametrize(
    ("make", "path"), [(SGD, "flat add"), (SparseAdam, "plain"), (Rotating, "plain")]
)
def test_sparse_gradients_give_the_plain_loops_trajectory(make, path):
    torch.manual_seed(0)
    model = nn.Embedding(3, 4, sparse=make is not Rotating)
    assert_same_trajectory(model, make, batches(), path, embedding_loss)


def test_sparse_gradients_under_momentum_end_the_flat_path():
    torch.manual_seed(0)
    model = nn.Embedding(3, 4, sparse=True)

    def make(p: Any, lr: float) -> Optimizer:
        return SGD(p, lr=lr, momentum=0.9)

    assert_same_trajectory(model, make, batches(), "flat", embedding_loss)


class Aliased(nn.Module):
    """A buffer shares the weight's memory, behind autograd's back."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 6))
        self.register_buffer("same", self.weight.data)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight.T + inputs @ self.same.T


def test_shared_memory_and_mixed_types_and_strides_take_the_plain_path():
    model = Aliased()
    assert make_update(model, SGD, loss, 0.1).path == "plain"
    assert model.same.data_ptr() == model.weight.data_ptr()

    mixed = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3).double())
    assert make_update(mixed, SGD, loss, 0.1).path == "plain"

    strided = nn.Linear(6, 3)
    strided.weight = nn.Parameter(torch.randn(6, 3).T)
    assert make_update(strided, SGD, loss, 0.1).path == "plain"


def test_a_differentiable_step_takes_the_plain_path():
    def make(p: Any, lr: float) -> Optimizer:
        return SGD(p, lr=lr, differentiable=True)

    assert make_update(mlp(), make, loss, 0.1).path == "plain"


def test_an_optimizer_with_nothing_to_train_takes_the_plain_path():
    model = mlp().requires_grad_(False)
    assert make_update(model, SGD, loss, 0.1).path == "plain"


def test_a_scheduler_attached_by_the_factory_is_not_bypassed():
    def scheduled(parameters: Any, lr: float) -> Optimizer:
        optimizer = SGD(parameters, lr=lr)
        StepLR(optimizer, 1)
        return optimizer

    assert make_update(mlp(), scheduled, loss, 0.1).path != "flat add"


def test_step_hooks_of_the_factory_are_called():
    calls: list[int] = []

    def hooked(parameters: Any, lr: float) -> Optimizer:
        optimizer = SGD(parameters, lr=lr)
        optimizer.register_step_post_hook(lambda *_: calls.append(1))
        return optimizer

    update = make_update(mlp(), hooked, loss, 0.1)
    update(batches(1)[0])
    assert calls == [1]


@pytest.mark.parametrize("make", [SGD, lambda p, lr: SGD(p, lr=lr, momentum=0.9)])
def test_a_learning_rate_changed_between_calls_holds_from_the_next(make):
    model, twin = mlp(), mlp()
    update = make_update(model, make, loss, 0.1)
    optimizer = make(twin.parameters(), 0.1)
    for step, batch in enumerate(batches(6)):
        for each in (update.optimizer, optimizer):
            each.param_groups[0]["lr"] = 0.1 / (step + 1)
        assert float(update(batch)) == pytest.approx(
            plain_loop(twin, optimizer, [batch])[0], rel=1e-5
        )


def test_a_model_already_trained_by_one_update_can_be_given_to_another():
    model, twin = mlp(), mlp()
    first = make_update(model, SGD, loss, 0.1)
    for batch in batches(3):
        first(batch)
    plain_loop(twin, SGD(twin.parameters(), 0.1), batches(3))
    assert_same_trajectory(model, Adam, batches(), "flat")


def test_a_loaded_checkpoint_reaches_the_flat_parameters():
    model, other = mlp(0), mlp(1)
    update = make_update(model, SGD, loss, 0.1)
    update(batches(1)[0])
    model.load_state_dict(other.state_dict())
    expected = plain_loop(other, SGD(other.parameters(), 0.1), batches())
    assert [float(update(b)) for b in batches()] == pytest.approx(expected, rel=1e-4)


def test_the_loss_returned_is_the_batchs_mean_and_detached():
    model, batch = mlp(), batches(1)[0]
    expected = loss(model, batch).mean().item()
    value = make_update(model, SGD, loss, 0.1)(batch)
    assert value.shape == ()
    assert not value.requires_grad
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_a_loss_that_is_not_one_value_per_example_is_refused():
    update = make_update(mlp(), SGD, lambda m, b: loss(m, b).mean(), 0.1)
    with pytest.raises(WorkloadError, match=r"one value per example.*got shape \(\)"):
        update(batches(1)[0])
    update = make_update(mlp(), SGD, lambda m, b: m(b[0]), 0.1)
    with pytest.raises(WorkloadError, match=r"got shape \(5, 3\)"):
        update(batches(1)[0])


def test_an_optimizer_that_needs_a_closure_says_so_itself():
    update = make_update(mlp(), lambda p, lr: LBFGS(p, lr=lr), loss, 0.1)
    with pytest.raises(TypeError, match="closure"):
        update(batches(1)[0])
