"""The language model workload: what is cut from a text, its loss, bad input."""

import math

import pytest
import torch

from rightbatch.errors import InputError
from rightbatch.experiments.data.text_stand_in import write_lm_text
from rightbatch.experiments.workloads.language_model import (
    ByteSequences,
    sequence_losses,
    shakespeare_transformer,
    transformer_on,
)
from rightbatch.sampler import ExampleStream, whole
from rightbatch.workload import data_status, num_parameters

TEXT = "".join(chr(97 + place % 26) for place in range(1001))


@pytest.fixture
def tiny(tmp_path):
    write_lm_text(tmp_path / "lm_text")
    return tmp_path


def test_the_count_follows_from_the_sizes_and_needs_no_data(tmp_path):
    d = 64
    attention = 2 * d + 3 * d * d + 3 * d + d * d + d
    feed_forward = 2 * d + 4 * d * d + 4 * d + 4 * d * d + d
    expected = 2 * 256 * d + 64 * d + 2 * (attention + feed_forward) + 2 * d
    workload = shakespeare_transformer(tmp_path)
    assert num_parameters(workload) == expected == 136_960


def test_sequences_follow_each_other_and_targets_are_one_byte_ahead():
    inputs, following = ByteSequences(lambda: TEXT).tensors
    # 901 bytes to train on: 14 sequences of 64 and a byte after each.
    assert inputs.shape == following.shape == (14, 64)
    text = TEXT.encode()
    assert bytes(inputs.flatten().tolist()) == text[: 14 * 64]
    assert bytes(following.flatten().tolist()) == text[1 : 14 * 64 + 1]


def test_the_last_tenth_is_held_out_and_never_trained_on():
    inputs, following = ByteSequences(lambda: TEXT, held_out=True).tensors
    assert bytes(inputs[0].tolist()) == TEXT[901:965].encode()
    assert len(inputs) == 1
    assert int(following[0, -1]) == ord(TEXT[965])


def test_the_subset_is_of_those_trained_on_and_always_the_same():
    everything = {tuple(row) for row in ByteSequences(lambda: TEXT).tensors[0].tolist()}
    first, again = (ByteSequences(lambda: TEXT, subset=5) for _ in range(2))
    assert len(first) == 5
    assert torch.equal(first.tensors[0], again.tensors[0])
    assert {tuple(row) for row in first.tensors[0].tolist()} <= everything


def test_the_loss_of_a_sequence_is_the_mean_over_its_bytes(tiny):
    workload = shakespeare_transformer(tiny)
    batch = whole(workload.evaluate_on)
    model = workload.model(0)
    losses = sequence_losses(model, batch).detach()
    assert losses.shape == (len(workload.evaluate_on),)
    chances = torch.softmax(model(batch[0][:1]).detach(), 2)[0]
    right = chances[torch.arange(64), batch[1][0]]
    assert float(losses[0]) == pytest.approx(float(-right.log().mean()), rel=1e-5)
    assert float(losses.mean()) == pytest.approx(math.log(256), abs=0.2)


def test_any_utf_8_text_of_ones_own_will_do(tmp_path):
    path = tmp_path / "brief.txt"
    path.write_text("Grüße aus Köln. " * 60, encoding="utf-8")
    workload = transformer_on(path)
    assert workload.name == "brief-transformer"
    batch = ExampleStream(workload.train, 0).next(4)
    assert workload.loss(workload.model(0), batch).shape == (4,)
    assert data_status(workload) == "found"


def test_a_text_that_is_too_short_is_refused():
    with pytest.raises(InputError, match="at least 650 bytes, got 649"):
        len(ByteSequences(lambda: "x" * 649, held_out=True))
    assert len(ByteSequences(lambda: "x" * 650, held_out=True)) == 1


@pytest.mark.slow
def test_real_tiny_shakespeare_is_read(shared_data):
    if not (shared_data / "lm_text").is_dir():
        pytest.skip("no tiny Shakespeare among the real data")
    workload = shakespeare_transformer(shared_data)
    # 1,115,394 bytes, a tenth held out.
    assert len(workload.train) == (1_115_394 - 111_539 - 1) // 64
    assert len(workload.evaluate_on) == 512
    assert len(workload.held_out) == (111_539 - 1) // 64
