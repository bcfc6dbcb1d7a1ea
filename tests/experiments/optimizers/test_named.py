import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from rightbatch.errors import InputError, WorkloadError
from rightbatch.experiments.identity import identify
from rightbatch.experiments.optimizers.kfac import Kfac, KfacFor
from rightbatch.experiments.optimizers.named import (
    OPTIMIZERS,
    SGD_LRS,
    named_optimizer,
    with_optimizer,
)
from rightbatch.experiments.workloads.digits import mlp
from rightbatch.timing import measure_step_times


@pytest.mark.parametrize(
    ("text", "kind", "settings"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0, "nesterov": False}),
        ("momentum", torch.optim.SGD, {"momentum": 0.9, "nesterov": False}),
        ("Nesterov:momentum=.5", torch.optim.SGD, {"momentum": 0.5, "nesterov": True}),
        ("adam: beta1=.5, eps=1e-6", torch.optim.Adam, {"betas": (0.5, 0.999)}),
        ("adamw:weight-decay=.1", torch.optim.AdamW, {"weight_decay": 0.1}),
        ("rmsprop:alpha=.9", torch.optim.RMSprop, {"alpha": 0.9}),
    ],
)
def test_a_name_gives_torch_s_optimizer_with_its_settings(
    text: str, kind: type, settings: dict
) -> None:
    made = named_optimizer(text)([nn.Parameter(torch.zeros(1))], 0.25)
    assert type(made) is kind
    assert made.defaults["lr"] == 0.25
    assert settings.items() <= made.defaults.items()


def test_kfac_is_made_for_a_model() -> None:
    made = named_optimizer("kfac:damping=.1,inverse_every=5")
    assert isinstance(made, KfacFor)
    kfac = made.for_model(nn.Linear(1, 2), 0.5)
    assert isinstance(kfac, Kfac)
    assert kfac.param_groups[0]["damping"] == 0.1
    assert kfac.param_groups[0]["inverse_every"] == 5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_to_other_processes_and_into_a_store(name: str) -> None:
    workload = with_optimizer(mlp(), name)
    identity = identify(workload)
    assert identity.workload == f"digits-mlp+{name}"
    kind = str(identity.fingerprint["optimizer"]).lower()
    assert kind.startswith({"momentum": "sgd", "nesterov": "sgd"}.get(name, name))
    again = pickle.loads(pickle.dumps(workload.optimizer))
    assert again == workload.optimizer


def test_the_name_says_what_is_other_than_usual() -> None:
    names = [
        with_optimizer(mlp(), text, decay).name
        for text, decay in (
            (None, None),
            ("adam", None),
            (None, 0.99),
            ("Adam:beta1=.50", 0.9),
        )
    ]
    assert names == [
        "digits-mlp",
        "digits-mlp+adam",
        "digits-mlp+ema0.99",
        "digits-mlp+adam,beta1=0.5+ema0.9",
    ]


def test_rates_are_the_optimizers_own() -> None:
    assert with_optimizer(mlp(), "sgd").lrs == mlp().lrs
    momentum = with_optimizer(mlp(), "momentum").lrs
    assert momentum == pytest.approx([0.1 * lr for lr in mlp().lrs])
    assert with_optimizer(mlp(), "adam").lrs[0] < 0.001
    assert with_optimizer(mlp(), None, 0.9).lrs == mlp().lrs


def test_rates_of_another_family_are_not_taken_over() -> None:
    def of(text: str, kind: type, **settings: float) -> tuple[float, ...]:
        def optimizer(parameters, lr):
            return kind(parameters, lr=lr, **settings)

        workload = replace(mlp(), optimizer=optimizer, lrs=(0.001, 0.003))
        return with_optimizer(workload, text).lrs

    assert of("sgd", torch.optim.Adam) == SGD_LRS
    assert of("momentum", torch.optim.Adam) == pytest.approx(
        [lr / 10 for lr in SGD_LRS]
    )
    own = of("momentum", torch.optim.SGD, momentum=0.9)
    assert own == pytest.approx((0.001, 0.003))
    assert of("sgd", torch.optim.SGD, momentum=0.9) == pytest.approx((0.01, 0.03))


def test_settings_of_many_digits_are_told_apart() -> None:
    names = {
        with_optimizer(mlp(), f"momentum:momentum={value}", value).name
        for value in (0.9999999, 0.99999991)
    }
    assert names == {
        "digits-mlp+momentum,momentum=0.9999999+ema0.9999999",
        "digits-mlp+momentum,momentum=0.99999991+ema0.99999991",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("adm", "no optimizer 'adm'.*did you mean adam"),
        ("xyz", "no optimizer 'xyz'.*one of sgd, momentum"),
        ("adam:beta=.5", "adam has no setting 'beta'.*did you mean beta"),
        ("sgd:q=1", "sgd has no setting 'q'.*it has weight_decay"),
        ("momentum:momentum=.5,momentum=.9", "`momentum` of momentum is given twice"),
        ("momentum:momentum", "`momentum` of momentum must be a number, got ''"),
        ("kfac:inverse_every=2.5", "must be a whole number, got '2.5'"),
        ("adam:beta1=2", "'adam:beta1=2' cannot be: Invalid beta"),
        ("momentum:momentum=-1", "cannot be: Invalid momentum"),
        ("sgd:weight_decay=nan", "`weight_decay` of sgd must be finite, got nan"),
        ("adam:weight_decay=inf", "`weight_decay` of adam must be finite, got inf"),
        ("momentum:momentum=1", "`momentum` of momentum must be below 1, got 1"),
        ("nesterov:momentum=1.5", "`momentum` of nesterov must be below 1, got 1.5"),
        ("rmsprop:alpha=1", "`alpha` of rmsprop must be below 1, got 1"),
        ("kfac:damping=0", "`damping` must be positive"),
    ],
)
def test_what_is_no_optimizer_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        named_optimizer(text)


def test_a_decay_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="`decay` must be between 0 and 1"):
        with_optimizer(mlp(), None, 1.0)
    with pytest.raises(WorkloadError, match="`ema_decay` must be between 0 and 1"):
        replace(mlp(), ema_decay=1.5)


def test_an_optimizer_that_needs_the_model_can_be_timed() -> None:
    workload = with_optimizer(mlp(), "kfac")
    timed = measure_step_times(workload, [8], budget_seconds=0.2)
    assert timed.seconds[0] > 0
