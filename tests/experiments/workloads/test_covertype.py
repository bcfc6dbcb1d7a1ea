"""Rows like covertype's: their columns, their pieces, their classes, the least loss."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from rightbatch.errors import InputError
from rightbatch.experiments.workloads.covertype import (
    CovertypeLike,
    covertype_softmax,
    least_loss,
)
from rightbatch.workload import data_status, load_workload, num_parameters


@pytest.fixture(scope="module")
def rows():
    return CovertypeLike(rows=10_000)


def test_there_are_495_columns_of_numbers_44_kinds_and_74_pairs(rows):
    columns = rows.tensors[0]
    areas, soils = columns[:, 495:499], columns[:, 499:539]
    pairs = columns[:, 539:]
    assert pairs.shape == (10_000, 74)
    for zeros_and_ones in (areas, soils, pairs):
        assert set(zeros_and_ones.unique().tolist()) == {0.0, 1.0}
        assert (zeros_and_ones.sum(1) == 1).all()
    # A pair is the product of an area and a soil: 74 of 160 occur.
    found = torch.stack([areas.argmax(1), soils.argmax(1)], 1).unique(dim=0)
    assert len(found) == 74


def test_columns_of_numbers_have_mean_0_and_variance_1_and_are_products(rows):
    columns = rows.tensors[0].double()
    numbers = columns[:, :495]
    assert numbers.mean(0).abs().max() < 0.05  # five errors of a mean of 10,000
    assert (numbers.var(0) - 1).abs().median() < 0.05
    # A product standardised is linear in the product of what it is of.
    measured = numbers[:, :10] + torch.tensor(
        [10.5, 1.4, 1.9, 1.3, 0.8, 1.5, 7.9, 11.3, 3.7, 1.5], dtype=torch.float64
    )
    pairs = [(i, j) for i in range(10) for j in range(i + 1, 10)]
    for place, (i, j) in enumerate(pairs):
        product = measured[:, i] * measured[:, j]
        together = torch.stack([product, numbers[:, 10 + place]])
        assert torch.corrcoef(together)[0, 1] == pytest.approx(1, abs=1e-5)
    soil = columns[:, 499]
    by_soil = torch.stack([measured[:, 2] * soil, numbers[:, 55 + 2 * 44 + 4]])
    assert torch.corrcoef(by_soil)[0, 1] == pytest.approx(1, abs=1e-5)


def test_fewer_rows_are_the_first_of_more_and_others_are_held_out(rows):
    fewer = CovertypeLike(rows=30)
    more = CovertypeLike(rows=10_002)
    for part, whole, longer in zip(
        fewer.tensors, rows.tensors, more.tensors, strict=True
    ):
        assert torch.equal(part, whole[:30])
        assert torch.equal(whole, longer[:10_000])
    assert not torch.equal(more.tensors[0][10_000], rows.tensors[0][0])
    others = CovertypeLike(rows=30, held_out=True)
    assert not torch.equal(others.tensors[0], fewer.tensors[0])


@pytest.mark.slow
def test_all_eight_classes_occur_and_the_columns_tell_them(rows):
    columns, classes = rows.tensors
    shares = classes.bincount() / len(classes)
    assert len(shares) == 8
    assert shares.min() > 0.02
    model = LogisticRegression(C=0.01).fit(columns[:5000], classes[:5000])
    held_out = log_loss(classes[5000:], model.predict_proba(columns[5000:]))
    assert held_out < 0.7 * np.log(8)


def test_the_least_loss_is_that_of_scikit_learns_logistic_regression():
    # Ten columns, so that 2,000 rows do not tell the classes apart without error.
    columns, classes = CovertypeLike(rows=2_000).tensors
    columns = columns[:, :10]
    model = LogisticRegression(C=1e6, tol=1e-6, max_iter=2_000)
    model.fit(columns.numpy(), classes.numpy())
    expected = log_loss(classes, model.predict_proba(columns.numpy()))
    assert least_loss(columns, classes) == pytest.approx(expected, abs=2e-5)


def test_the_workload_is_registered_at_full_size_and_listing_it_draws_no_rows():
    workload = load_workload("covertype-softmax")
    assert len(workload.train) == 200_000
    assert num_parameters(workload) == 4_912
    assert data_status(workload) == "bundled"
    assert "synthetic" in workload.source
    assert "tensors" not in vars(workload.train)


def test_another_number_of_rows_is_another_workload_by_name():
    workload = covertype_softmax(rows=500)
    assert workload.name == "covertype-softmax-500"
    assert (len(workload.train), len(workload.evaluate_on)) == (500, 50)
    losses = workload.loss(workload.model(0), workload.evaluate_on.tensors)
    assert losses.shape == (50,)


def test_a_number_of_rows_that_is_none_is_refused():
    with pytest.raises(InputError, match="`rows` must be a"):
        CovertypeLike(rows=0)
