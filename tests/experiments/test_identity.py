import pytest
import tiny_workload
import torch
from torch.optim import SGD, Adam
from torch.utils.data import Dataset

from rightbatch.errors import StoreMismatchError, WorkloadFailedError
from rightbatch.experiments.identity import identify, open_store
from rightbatch.workload import Target


def fingerprint(**changes):
    return identify(tiny_workload.make(**changes)).fingerprint


def differing(**changes):
    one, other = fingerprint(), fingerprint(**changes)
    return {key for key in one if one[key] != other[key]}


def test_decays_of_many_digits_are_told_apart():
    decays = (0.9999999, 0.99999991, 0.9)
    found = [fingerprint(ema_decay=decay)["ema_decay"] for decay in decays]
    assert found == ["0.9999999", "0.99999991", "0.9"]


def test_the_same_workload_has_the_same_identity():
    assert identify(tiny_workload.tiny()) == identify(tiny_workload.tiny())
    assert differing() == set()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model": tiny_workload.with_dropout}, "parameters"),
        ({"optimizer": lambda p, lr: SGD(p, lr=lr, momentum=0.9)}, "optimizer"),
        ({"optimizer": lambda p, lr: Adam(p, lr=lr)}, "optimizer"),
        ({"train": tiny_workload.points(256, 5)}, "train"),
        ({"train": tiny_workload.points(255, 0)}, "train"),
        ({"evaluate_on": tiny_workload.points(100, 5)}, "evaluate_on"),
        ({"target": Target(value=0.4)}, "on"),
    ],
)
def test_what_makes_runs_incomparable_shows(changes, key):
    assert differing(**changes) == {key}


def test_another_metric_is_another_identity():
    target = Target(metric="accuracy", value=0.9, direction="max", on="held_out")
    assert differing(target=target) == {"metric", "direction"}


def test_another_value_of_the_target_is_the_same_identity():
    assert differing(target=Target(value=0.1, on="held_out")) == set()


class Augmented(Dataset):
    def __len__(self):
        return 50

    def __getitem__(self, index):
        noisy = torch.full((4,), float(index)) + torch.randn(4)
        return {"inputs": noisy, "name": f"item {index}", "other": object()}, [
            index,
            1.5,
        ]


def test_data_augmented_at_random_has_one_identity():
    assert fingerprint(train=Augmented()) == fingerprint(train=Augmented())


def test_an_error_of_the_workload_is_shown():
    def model(seed):
        raise KeyError("no such layer")

    with pytest.raises(WorkloadFailedError, match="KeyError: 'no such layer'"):
        fingerprint(model=model)


def test_a_store_is_opened_for_the_workload_it_belongs_to_only(tmp_path):
    path = tmp_path / "runs.sqlite"
    open_store(path, tiny_workload.tiny()).close()
    open_store(path, tiny_workload.tiny()).close()
    with pytest.raises(StoreMismatchError, match="another 'tiny': parameters 10, now"):
        open_store(path, tiny_workload.make(model=tiny_workload.with_dropout))
