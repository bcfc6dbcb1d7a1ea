"""Two replicas of a Trainer make the updates of one."""

import socket

import pytest
import torch
from example_replicas import found_by_each
from integrations.example_trainer_replicas import MODELS, train, work


@pytest.mark.slow
def test_two_replicas_make_the_updates_of_one_and_go_on(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    first, second = found_by_each(work, 2, tmp_path)
    for kind in MODELS:
        alone = train(tmp_path / "alone", kind)
        for one in (first[kind], second[kind]):
            assert one["sizes"] == alone["sizes"]
            assert one["losses"] == pytest.approx(alone["losses"], rel=1e-5)
            torch.testing.assert_close(one["weights"], alone["weights"])
    whole, again = first["noise"], first["resumed"]
    assert whole["noise"][-1] is not None
    at = len(whole["sizes"]) // 2
    assert again["sizes"] == whole["sizes"][at:]
    assert again["noise"] == whole["noise"][at:]
    torch.testing.assert_close(again["weights"], whole["weights"])
    assert second["noise"]["sizes"] == whole["sizes"]
