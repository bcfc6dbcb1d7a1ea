"""DDP and FSDP2 on two processes make the updates of one process."""

import pytest
import torch
from controller import replica_work
from controller.example_training import Listed, data, loss_of, net, run
from example_replicas import found_by_each
from torch.optim import SGD, Adam

from rightbatch.controller import BatchSizeController
from rightbatch.sampler import MicroBatchStream


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas")
    torch.save(half_way(), folder / "alone.pt")
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """What each of two processes found, by case."""
    return found_by_each(replica_work.work, replica_work.WORLD, folder)


def single(micro_batch_size=4):
    model = net()
    return BatchSizeController(
        model,
        Adam(model.parameters(), lr=0.01),
        Listed((8, 16)),
        MicroBatchStream(data(), micro_batch_size),
    )


def half_way():
    return run(single(), loss_of, max_steps=9).training_state()


SAME = {
    "ddp listed": ("listed", SGD),
    "ddp adadamp": ("adadamp", SGD),
    "ddp noise": ("noise", SGD),
    "ddp adam": ("listed", Adam),
    "fsdp listed": ("listed", SGD),
    "fsdp adadamp": ("adadamp", SGD),
    "fsdp noise": ("noise", SGD),
    "fsdp adam": ("listed", Adam),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SAME)
def test_two_replicas_make_the_updates_of_one_process(found, case):
    name, kind = SAME[case]
    # The granule of two replicas of 4; passes of 4 make the units of the meter equal.
    alone = replica_work.trained(
        lambda model: model, name, micro_batch_size=8, kind=kind
    )
    for one in found:
        assert isinstance(one.get(case), dict), one.get(case)
        assert one[case]["sizes"] == alone["sizes"]
        assert one[case]["losses"] == pytest.approx(alone["losses"], rel=1e-9)
        assert one[case]["lrs"] == pytest.approx(alone["lrs"], rel=1e-6)
        difference = (one[case]["weights"] - alone["weights"]).abs().max()
        assert difference < (1e-8 if name != "noise" else 1e-5)


@pytest.mark.slow
def test_short_tails_are_shared_out_too(found):
    alone = replica_work.trained(
        lambda model: model, "listed", tail="short", micro_batch_size=2
    )
    for one in found:
        assert one["ddp short"]["sizes"] == alone["sizes"]
        torch.testing.assert_close(one["ddp short"]["weights"], alone["weights"])


@pytest.mark.slow
def test_two_sharded_replicas_go_on_from_one_process(found):
    whole = run(single(), loss_of, max_steps=20)
    for one in found:
        assert one["resumed"]["examples"] == whole.examples
        torch.testing.assert_close(
            one["resumed"]["weights"], replica_work.whole(whole.model)
        )


@pytest.mark.slow
def test_the_first_replica_s_decision_is_everybody_s(found):
    for one in found:
        assert one["own wish"] == [(8, 0.025), (16, 0.025)] * 2


@pytest.mark.slow
def test_replicas_cannot_begin_an_update_anew(found):
    for one in found:
        assert "replicas share this batch" in one["not smaller"]


@pytest.mark.slow
def test_a_loss_lost_on_one_replica_is_lost_on_all(found):
    for one in found:
        assert "training is lost at update 4" in one["lost"]


@pytest.mark.slow
def test_tokens_weigh_alike_on_all_replicas_of_a_framework_s_loop(found):
    model, counts = net(), [count for one in replica_work.COUNTS for count in one]
    losses = [
        loss_of(model, data()[4 * place : 4 * place + 4]) * count / sum(counts)
        for place, count in enumerate(counts)
    ]
    sum(losses).backward()
    expected = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    for one in found:
        gradient, loss = one["hosted tokens"]
        torch.testing.assert_close(gradient, expected)
        assert loss == pytest.approx(float(sum(losses).detach()))
