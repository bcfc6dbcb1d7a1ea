"""Two replicas under Lightning's DDP train as one process does."""

import pytest
import torch
from example_replicas import found_by_each
from integrations.example_lightning import QUIET
from integrations.example_lightning_replicas import POLICIES, WORLD, trained, work

pytestmark = [
    pytest.mark.slow,
    *(pytest.mark.filterwarnings(one) for one in QUIET),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    found = found_by_each(work, WORLD, tmp_path_factory.mktemp("replicas"))
    for one in found:
        assert not isinstance(one, str), one
    return found


@pytest.mark.parametrize("name", [*POLICIES, "resumed"])
def test_two_replicas_train_as_one_process_does(found, tmp_path, name):
    alone = trained(tmp_path, "noise" if name == "resumed" else name)
    assert len(set(alone["sizes"])) > 2
    for one in (replica[name] for replica in found):
        assert one["replicas"] == WORLD
        assert one["sizes"] == alone["sizes"]
        assert one["epoch"] == alone["epoch"] == 2.0
        torch.testing.assert_close(one["weights"], alone["weights"])
        for key in ("losses", "lrs", "noise"):
            assert one[key] == pytest.approx(alone[key], rel=1e-6)
