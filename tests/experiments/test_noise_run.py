"""Gradient noise along a run: windows, exact gradients, ends and refusals."""

import math

import pytest
import torch
from tiny_workload import Items, cross_entropy, make, points, with_dropout
from torch import nn
from torch.optim import SGD, Adam

from rightbatch.errors import InputError, WorkloadError, WorkloadFailedError
from rightbatch.experiments.noise_record import (
    AVERAGE,
    NoiseMeasurement,
    run_average,
)
from rightbatch.experiments.noise_run import NoiseRun
from rightbatch.experiments.noise_settings import (
    NoiseSettings,
    unit_sizes,
    window_ends,
)
from rightbatch.experiments.noise_trainee import Trainee
from rightbatch.gradients import NoiseReading
from rightbatch.noise_scale import GradientMoments, MomentAverage
from rightbatch.workload import Target


def settings_of(batch_size=32, **changes):
    given = {
        "batch_size": batch_size,
        "lr": 0.1,
        "unit_sizes": () if "unit_sizes" in changes else unit_sizes(batch_size),
        "max_steps": 80,
        "window_ends": window_ends(80),
    }
    return NoiseSettings(**(given | changes))


def ended(workload=None, **changes):
    run = NoiseRun(workload or make(), settings_of(**changes))
    run.advance()
    return run


# Windows ------------------------------------------------------------------------------


def test_windows_are_disjoint_and_cover_the_run_from_its_first_update():
    run = ended()
    rows = run.measurements
    assert run.status == "finished"
    assert [row.step for row in rows] == [0, 20, 40, 80]
    assert [row.first_step for row in rows] == [0, 0, 20, 40]
    assert [row.examples for row in rows] == [0, 640, 1280, 2560]
    assert [row.reading.estimate.num_steps for row in rows] == [20, 20, 20, 40]


def test_a_row_knows_nothing_of_the_window_before_it():
    """The last window's moments are those of a meter that began there."""
    rows = ended().measurements
    trainee = Trainee(make(), settings_of(), torch.device("cpu"), stream=1)
    for _ in range(40):
        trainee.update(train=True)
    trainee.meter.reset()
    for _ in range(40):
        trainee.update(train=True)
    assert trainee.meter.noise_scale.moments == rows[-1].reading.moments


def test_the_row_at_initialisation_is_of_frozen_weights():
    workload = make()
    first = ended(workload).measurements[0]
    model = workload.model(0)
    inputs, labels = workload.train.tensors
    gradients = torch.stack(
        [
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(
                        cross_entropy(model, (x[None], y[None])).sum(),
                        list(model.parameters()),
                    )
                ]
            )
            for x, y in zip(inputs, labels, strict=True)
        ]
    ).double()
    variance = float(gradients.var(0).sum())
    square = float(gradients.mean(0).square().sum())
    moments = first.reading.moments
    # 20 batches in 8 units: a standard error of some percent for tr Sigma, and three
    # times that for |G|^2.
    assert moments.grad_variance == pytest.approx(variance, rel=0.2)
    assert moments.grad_sq_norm == pytest.approx(square, rel=0.5)


def test_a_short_last_window_joins_the_one_before():
    run = ended(max_steps=44, window_ends=window_ends(44))
    assert [row.step for row in run.measurements] == [0, 20, 44]
    last = run.measurements[-1]
    assert (last.first_step, last.reading.estimate.num_steps) == (20, 24)
    assert set(last.reading.parts) == {"weight", "bias"}
    assert 0 < last.loss < run.measurements[1].loss


def test_window_ends_grow_geometrically_to_the_last_update():
    assert window_ends(10) == (10,)
    assert window_ends(20) == (20,)
    assert window_ends(2560)[-2:] == (1280, 2560)
    assert window_ends(1000, 1) == (1000,)
    ends = window_ends(1000, 6)
    assert (len(ends), ends[0], ends[-1]) == (6, 20, 1000)
    ratios = [b / a for a, b in zip(ends, ends[1:], strict=False)]
    assert max(ratios) / min(ratios) < 1.05


# Units --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "micro", "sizes"),
    [
        (64, None, (8,) * 8),
        (6, None, (1,) * 6),
        (21, None, (3,) * 7),
        (13, None, (2,) * 5 + (1,) * 3),
        (2, None, (1, 1)),
        (13, 5, (5, 5, 3)),
    ],
)
def test_units_are_eight_or_as_many_as_divide(batch, micro, sizes):
    assert unit_sizes(batch, micro) == sizes
    assert sum(sizes) == batch


@pytest.mark.parametrize("sizes", [(8, 8, 8, 8), (32,), (13, 13, 6)])
@pytest.mark.parametrize("data", [points(256, 0), Items(points(256, 0))])
def test_the_gradient_is_the_batch_mean_whatever_the_units(sizes, data):
    workload = make(train=data)
    source = "units" if len(sizes) > 1 else "examples"
    settings = settings_of(unit_sizes=sizes, source=source)
    trainee = Trainee(workload, settings, torch.device("cpu"), stream=1)
    model = workload.model(0)
    optimizer = workload.optimizer(model.parameters(), 0.1)
    plain = Trainee(workload, settings, torch.device("cpu"), stream=1)
    for _ in range(5):
        loss = trainee.update(train=True)
        batch = plain.stream.next(32)
        optimizer.zero_grad()
        mean = cross_entropy(model, batch).mean()
        mean.backward()
        optimizer.step()
        assert loss == pytest.approx(mean.item(), rel=1e-5)
    for one, other in zip(trainee.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_units_and_single_examples_agree():
    scales = []
    for source, sizes in (("units", (4,) * 8), ("examples", (32,))):
        run = ended(source=source, unit_sizes=sizes, max_steps=20, window_ends=(20,))
        scales.append(run.measurements[0].reading)
    units, examples = scales
    # Both on the same 20 batches: as far apart as eight units are from the truth.
    assert units.moments.grad_variance == pytest.approx(
        examples.moments.grad_variance, rel=0.25
    )
    assert examples.source == "examples"


def test_measuring_every_third_update_changes_no_other():
    rows = [ended(every=every).measurements[-1] for every in (1, 3)]
    assert rows[0].loss == rows[1].loss
    assert rows[1].reading.estimate.num_steps in (13, 14)


def test_a_run_depends_on_its_seed_alone():
    drops = make(model=with_dropout)
    first = ended(drops)
    torch.manual_seed(123)
    again, other = ended(drops), ended(drops, seed=1)
    losses = [[row.loss for row in run.measurements] for run in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]


# Ends ---------------------------------------------------------------------------------


def test_a_run_ends_soon_after_its_target():
    run = ended(target=0.45, lr=0.5, max_steps=2000, window_ends=window_ends(2000))
    assert run.status == "reached"
    assert run.step < 400
    assert run.measurements[-1].step == run.step


def test_held_out_examples_are_not_read_while_the_training_loss_is_far_off():
    read = []

    def loss(model, batch):
        if not model.training:
            read.append(len(batch[0]))
        return cross_entropy(model, batch)

    far, near = 0.05, 0.3
    ended(make(loss=loss), target=far)
    at_start = len(read)
    read.clear()
    ended(make(loss=loss), target=near)
    assert at_start == 1
    assert len(read) > 3


def test_a_metric_that_rises_is_a_target_too():
    target = Target(metric="accuracy", direction="max", value=0.85, on="held_out")
    run = ended(make(target=target), target=0.8, lr=0.5)
    assert run.status == "reached"


def test_a_loss_that_is_not_finite_ends_a_run_with_its_rows_kept():
    def counting(model, batch):
        counting.calls += 1
        return cross_entropy(model, batch) * (math.nan if counting.calls > 450 else 1)

    counting.calls = 0
    run = ended(make(loss=counting))
    assert run.status == "diverged"
    assert [row.step for row in run.measurements][:2] == [0, 20]
    assert all(math.isfinite(row.loss) for row in run.measurements)


def test_an_untrained_loss_that_is_not_finite_leaves_no_row():
    run = ended(make(loss=lambda m, b: cross_entropy(m, b) * math.inf))
    assert (run.status, run.measurements, run.step) == ("diverged", [], 0)


def squared(model, batch):
    return (model(batch[0])[:, 0] - batch[1]).square()


def test_a_loss_that_explodes_ends_a_run():
    run = ended(make(loss=squared), lr=3.0, max_steps=400, window_ends=(400,))
    assert run.status == "diverged"
    assert run.step < 400


def test_an_interrupted_run_keeps_the_window_under_way():
    def stop(step):
        if step == 33:
            raise KeyboardInterrupt

    run = NoiseRun(make(), settings_of())
    with pytest.raises(KeyboardInterrupt):
        run.advance(stop)
    run.interrupt()
    assert run.status == "interrupted"
    assert [row.step for row in run.measurements] == [0, 20, 33]


def test_time_and_precision_end_a_run():
    late = ended(max_seconds=1e-9)
    assert (late.status, late.step) == ("stopped", 1)
    assert late.measurements[0].reading.estimate.num_steps == 5
    exact = ended(
        relative_error=0.5,
        dataset_size=256,
        batch_size=128,
        unit_sizes=unit_sizes(128),
        max_steps=5000,
        window_ends=window_ends(5000),
    )
    assert exact.status == "stopped"
    assert exact.step in (160, 320, 640)


# Rows ---------------------------------------------------------------------------------


def row_of(squares, variance, steps, **changes):
    average = MomentAverage()
    for square in squares:
        moments = GradientMoments(grad_sq_norm=square, grad_variance=variance)
        average = average.add(moments, examples=64)
    reading = NoiseReading(estimate=average.noise_scale(), source="units")
    first, step = steps
    given = {"first_step": first, "step": step, "examples": 64 * step, "loss": 1.0}
    return NoiseMeasurement(**(given | changes), reading=reading)


STEADY = (0.95, 1.05, 1.0, 1.0)
HIDDEN = (-1.0, 3.0, -2.0, 2.0)


def test_a_row_has_the_stable_keys_and_suggestions_by_name():
    row = row_of(STEADY, 50.0, (0, 4), sgd_lr=0.1).to_dict()
    assert row["simple_noise_scale"].keys() >= {"value", "low", "high", "level"}
    assert row["simple_noise_scale"]["value"] == pytest.approx(50)
    assert row["diversity_batch_bound"] == pytest.approx(51)
    suggested = row["suggested"]
    assert suggested["noise_scale"]["value"] == pytest.approx(50)
    assert suggested["cabs"]["value"] == pytest.approx(0.1 * 50 / 1.0)
    assert all(one["definition"] and one["source"] for one in suggested.values())


def test_what_is_not_resolved_suggests_nothing_that_needs_the_gradient():
    row = row_of(HIDDEN, 50.0, (0, 4), sgd_lr=0.1)
    assert row.reading.status == "at least"
    plain = row.to_dict()
    assert plain["simple_noise_scale"]["high"] is None
    assert plain["lower_bound"] > 0
    assert plain["diversity_batch_bound"] is None
    values = {name: one["value"] for name, one in plain["suggested"].items()}
    assert values.pop("cabs") == pytest.approx(5.0)
    assert set(values.values()) == {None}


@pytest.mark.parametrize(
    ("optimizer", "has_cabs"),
    [
        (lambda p, lr: SGD(p, lr=lr), True),
        (lambda p, lr: SGD(p, lr=lr, momentum=0.9), False),
        (lambda p, lr: Adam(p, lr=lr), False),
    ],
    ids=["sgd", "momentum", "adam"],
)
def test_cabs_is_for_plain_sgd_alone(optimizer, has_cabs):
    run = ended(make(optimizer=optimizer), max_steps=20, window_ends=(20,))
    assert ("cabs" in run.measurements[-1].to_dict()["suggested"]) is has_cabs


def test_layers_add_up_to_the_whole():
    run = ended(make(model=with_dropout))
    for row in run.measurements:
        parts = row.to_dict()["parts"].values()
        assert len(parts) == 2
        assert sum(part["share_of_variance"] for part in parts) == pytest.approx(1)
        assert sum(part["share_of_sq_norm"] for part in parts) == pytest.approx(1)


def test_the_average_weighs_windows_by_their_steps():
    rows = [
        row_of(STEADY, 10.0, (0, 0)),
        row_of(STEADY, 50.0, (0, 20)),
        row_of(STEADY, 110.0, (20, 60)),
    ]
    average = run_average(rows)
    assert average.value == pytest.approx((20 * 50 + 40 * 110) / 60)
    assert average.definition == AVERAGE
    widths = [row.reading.interval for row in rows[1:]]
    below = math.hypot(
        20 / 60 * (widths[0].value - widths[0].low),
        40 / 60 * (widths[1].value - widths[1].low),
    )
    assert average.low == pytest.approx(average.value - below)


def test_a_window_without_an_upper_end_leaves_the_average_without_one():
    rows = [row_of(STEADY, 50.0, (0, 20)), row_of(HIDDEN, 50.0, (20, 40))]
    average = run_average(rows)
    assert average.high is None
    assert average.low is not None
    assert run_average([row_of((-1.0, -1.1, -0.9), 5.0, (0, 20))]) is None


# Refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.0}, "`lr` must be positive"),
        ({"seed": -1}, "`seed` must not be negative"),
        ({"every": 0}, "`every` must be a whole number"),
        ({"source": "replicas"}, "`source` cannot be 'replicas'"),
        ({"unit_sizes": (32,)}, "in one unit tells no noise"),
        (
            {"batch_size": 1, "unit_sizes": (1,), "source": "examples"},
            "of one example tells",
        ),
    ],
)
def test_settings_that_tell_no_noise_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        settings_of(**changes)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: unit_sizes(1), "one example alone"),
        (lambda: unit_sizes(8, 8), "below the batch size 8, got 8"),
        (lambda: window_ends(0), "`max_steps` must be a whole number"),
        (lambda: window_ends(10, 0), "`rows` must be a whole number"),
    ],
)
def test_units_and_windows_that_cannot_be_are_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()


def contrastive(model, batch):
    scores = nn.functional.normalize(model(batch[0]))
    return -(scores @ scores.T).log_softmax(dim=1).diagonal()


def test_a_loss_of_the_whole_batch_is_refused_before_anything_is_trained():
    with pytest.raises(InputError, match="tiny: .* depends on the others"):
        NoiseRun(make(loss=contrastive), settings_of())


def test_batch_normalization_is_read_in_units_with_a_note_and_not_by_examples():
    def normalized(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))

    workload = make(model=normalized)
    assert "Batch normalization" in ended(workload).notes[0]
    with pytest.raises(InputError, match=r"(?i)batch normalization"):
        NoiseRun(workload, settings_of(source="examples", unit_sizes=(32,)))


def test_a_target_met_at_the_start_is_refused():
    with pytest.raises(InputError, match="met before the first update"):
        NoiseRun(make(), settings_of(target=100.0))


def test_errors_of_the_workload_are_its_own():
    def broken(model, batch):
        if torch.is_grad_enabled():
            raise ZeroDivisionError("as it was told to")
        return cross_entropy(model, batch)

    run = NoiseRun(make(loss=broken), settings_of())
    with pytest.raises(WorkloadFailedError, match="tiny .* ZeroDivisionError"):
        run.advance()

    def short(model, batch):
        losses = cross_entropy(model, batch)
        return losses[1:] if torch.is_grad_enabled() else losses

    run = NoiseRun(make(loss=short), settings_of())
    with pytest.raises(WorkloadError, match="one value per example"):
        run.advance()
