import pytest
import torch

from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.identity import identify
from rightbatch.experiments.optimizers.named import with_optimizer
from rightbatch.experiments.randomness import derived_seed
from rightbatch.experiments.run import run_to_target
from rightbatch.experiments.sweep import SweepSettings, sweep
from rightbatch.experiments.workloads.digits import mlp
from rightbatch.sampler import ExampleStream


@pytest.mark.parametrize("definition", ["smoothed", "first"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_checks_are_of_the_averaged_weights_of_the_plain_loop(
    optimizer: str, definition: str
) -> None:
    decay, lr = 0.9, {"sgd": 0.5, "adam": 0.01}[optimizer]
    workload = with_optimizer(mlp(), optimizer, decay)
    run = run_to_target(
        workload,
        batch_size=64,
        lr=lr,
        seed=3,
        targets=[0.4],
        crossing=Crossing(definition=definition),
    )
    model = workload.model(3)
    made = workload.optimizer(model.parameters(), lr)
    stream = ExampleStream(workload.train, derived_seed(3, 1))
    averages = [p.detach().clone() for p in model.parameters()]
    images, labels = workload.evaluate_on.tensors
    reference = workload.model(0)
    losses = {}
    for step in range(run.last_step + 1):
        for parameter, average in zip(reference.parameters(), averages, strict=True):
            parameter.data = average
        with torch.no_grad():
            mean = workload.loss(reference, (images, labels)).double().mean()
        losses[step] = mean.item()
        made.zero_grad()
        workload.loss(model, stream.next(64)).mean().backward()
        made.step()
        averages = [
            decay * average + (1 - decay) * parameter.detach()
            for average, parameter in zip(averages, model.parameters(), strict=True)
        ]
    assert run.status == "reached"
    if definition == "first":
        assert run.steps() == min(s for s, loss in losses.items() if loss <= 0.4)
    for step, value in run.trace:
        assert value == pytest.approx(losses[step], rel=1e-4)


def test_averaging_does_not_change_what_is_trained() -> None:
    losses = []
    for decay in (None, 0.99):
        workload = with_optimizer(mlp(), "sgd", decay)
        run = run_to_target(workload, batch_size=64, lr=0.5, seed=0, targets=[0.5])
        losses.append(run.steps())
    assert losses[0] < losses[1]


def test_a_sweep_by_name_takes_another_optimizer_into_its_processes() -> None:
    settings = SweepSettings(
        batch_sizes=(256,),
        lrs=(0.03,),
        seeds=(0,),
        targets=(0.5,),
        optimizer="adam",
        ema_decay=0.5,
    )
    [run] = sweep("digits-mlp", settings, processes=1)
    workload = with_optimizer(mlp(), "adam", 0.5)
    again = run_to_target(workload, batch_size=256, lr=0.03, seed=0, targets=[0.5])
    assert run.trace == again.trace


def test_kfac_reaches_the_digits_target_in_fewer_steps_than_sgd() -> None:
    steps = []
    for optimizer, lr in (("sgd", 1.0), ("kfac", 0.3)):
        workload = with_optimizer(mlp(), optimizer)
        run = run_to_target(workload, batch_size=256, lr=lr, seed=0)
        steps.append(run.steps())
    assert steps[1] < 0.6 * steps[0]


def test_a_store_tells_averages_apart() -> None:
    plain, averaged = (with_optimizer(mlp(), None, decay) for decay in (None, 0.5))
    assert identify(averaged).fingerprint["ema_decay"] == "0.5"
    assert "ema_decay" not in identify(plain).fingerprint
