"""The controller in a loop of Accelerate is the same as in a loop without."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from example_policies import Listed
from integrations.example_texts import language_model, texts
from integrations.example_trainers import column, weights
from torch.nn import functional
from torch.optim import AdamW
from torch.utils.data import TensorDataset

from rightbatch.controller import Acting, BatchSizeController, Sensing
from rightbatch.sampler import MicroBatchStream


def trained(prepare):
    """Return the model and controller of a loop whose loss is a mean over tokens."""
    rows = texts("words")
    data = TensorDataset(
        *(torch.stack([row[name] for row in rows]) for name in rows[0])
    )
    model = language_model()
    called = prepare(model)
    controller = BatchSizeController(
        called,
        AdamW(model.parameters(), lr=0.01),
        Listed((4, 8, 16)),
        MicroBatchStream(data, 4, seed=0),
        lr_rule="auto",
        sensing=Sensing(tokens=lambda batch: (batch[2][:, 1:] != -100).sum()),
        acting=Acting(max_grad_norm=1.0),
    )
    for update in controller.updates(epochs=3):
        for part in update:
            words, mask, labels = part.batch
            logits = called(words, attention_mask=mask).logits[:, :-1]
            loss = functional.cross_entropy(
                logits.flatten(0, 1).float(), labels[:, 1:].flatten()
            )
            update.backward(loss)
        update.step()
    return model, controller


def test_a_prepared_model_is_trained_as_the_plain_one():
    model, plain = trained(lambda model: model)
    again, prepared = trained(Accelerator(cpu=True).prepare)
    assert column(prepared.records, "batch_size") == column(plain.records, "batch_size")
    losses = pytest.approx(column(plain.records, "loss"), rel=1e-6)
    assert column(prepared.records, "loss") == losses
    torch.testing.assert_close(weights(again), weights(model))


@pytest.fixture
def bf16():
    """Return an Accelerator of another precision, which a process has one of."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state(reset_partial_state=True)


def test_mixed_precision_is_accelerate_s(bf16):
    _, plain = trained(lambda model: model)
    _, mixed = trained(bf16.prepare)
    losses = pytest.approx(column(plain.records, "loss"), rel=0.02)
    assert column(mixed.records, "loss") == losses
    assert column(mixed.records, "loss")[-1] != column(plain.records, "loss")[-1]
