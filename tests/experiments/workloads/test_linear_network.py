"""The linear network: the rows adadamp draws, the net, and what least squares gives."""

import numpy as np
import pytest
import torch

from rightbatch.experiments.workloads.linear_network import (
    LinearRows,
    least_losses,
    linear_network,
)
from rightbatch.workload import data_status, load_workload


def test_the_rows_are_those_of_random_state_42_drawn_in_adadamps_order():
    draw = np.random.RandomState(42)
    a = draw.randn(10_000, 100)
    y = a @ draw.randn(100) + draw.randn(10_000)
    trains = draw.choice([False, True], size=10_000, p=[0.2, 0.8])
    for held_out, chosen in ((False, trains), (True, ~trains)):
        rows, wanted = LinearRows(held_out=held_out).tensors
        np.testing.assert_array_equal(rows, a[chosen].astype("float32"))
        np.testing.assert_array_equal(wanted, y[chosen].astype("float32"))
    assert trains.sum() == 8_051


def test_the_least_losses_are_the_published_ones_and_no_weights_do_better():
    train, test = least_losses()
    assert (round(train, 5), round(test, 4)) == (0.98605, 1.0378)
    # Three layers are one matrix: the normal equations are their optimum too.
    rows, wanted = (part.double() for part in LinearRows(held_out=False).tensors)
    weights = torch.linalg.solve(rows.T @ rows, rows.T @ wanted)
    assert float((rows @ weights - wanted).square().mean()) == pytest.approx(train)


def test_it_is_registered_needs_no_files_and_has_three_layers_without_biases():
    workload = load_workload("linear-network")
    assert workload.name == linear_network().name == "linear-network"
    assert data_status(workload) == "bundled"
    assert "synthetic" in workload.source
    shapes = [tuple(p.shape) for p in workload.model(0).parameters()]
    assert shapes == [(100, 100), (100, 100), (1, 100)]


def test_the_loss_is_the_squared_error_of_the_product_of_the_layers():
    workload = linear_network()
    model = workload.model(3)
    first, second, third = model.parameters()
    rows, wanted = (part[:5] for part in workload.train.tensors)
    expected = (rows @ (third @ second @ first).T).squeeze(1) - wanted
    losses = workload.loss(model, (rows, wanted))
    torch.testing.assert_close(losses, expected.square(), rtol=1e-4, atol=1e-4)


def test_an_item_is_a_row_of_a_hundred_with_one_number():
    rows, wanted = linear_network().evaluate_on.tensors
    row, number = linear_network().evaluate_on[7]
    assert torch.equal(row, rows[7])
    assert number == wanted[7]
    assert row.shape == (100,)
