"""A training run under a policy, beside loops written out by hand."""

import json
import math
import signal

import numpy as np
import pytest
import torch
from tiny_workload import Items, cross_entropy, make, points, sgd, with_dropout
from torch import nn

from rightbatch.errors import InputError, WorkloadFailedError
from rightbatch.experiments.randomness import derived_seed
from rightbatch.experiments.train_run import RunFiles, TrainJob, run_training
from rightbatch.experiments.train_settings import (
    TrainSettings,
    num_evaluations,
    policy_examples,
)
from rightbatch.policies import named_policy
from rightbatch.sampler import ExampleStream


def job_of(policy="constant", workload=None, seed=0, **changes):
    workload = workload or make()
    settings = TrainSettings(
        **{
            "lr": 0.1,
            "initial_batch_size": 8,
            "max_batch_size": 64,
            "micro_batch_size": 8,
            "max_examples": 1024,
            **changes,
        }
    )
    made = named_policy(
        policy, initial_batch_size=8, max_batch_size=settings.max_batch_size
    )
    return TrainJob(
        workload=workload, policy=made, name=policy, seed=seed, settings=settings
    )


def mean_loss(model, data):
    with torch.no_grad():
        return float(cross_entropy(model, data.tensors).double().mean())


# What a run is ------------------------------------------------------------------------


def test_a_constant_batch_is_plain_sgd_on_the_same_examples():
    workload = make()
    run = run_training(job_of(workload=workload))
    model = workload.model(0)
    optimizer = sgd(model.parameters(), 0.1)
    stream = ExampleStream(workload.train, derived_seed(0, 1))
    losses = [mean_loss(model, workload.evaluate_on)]
    batch_losses = []
    for _ in range(128):
        optimizer.zero_grad()
        loss = cross_entropy(model, stream.next(8)).mean()
        loss.backward()
        optimizer.step()
        batch_losses.append(float(loss.detach()))
        losses.append(mean_loss(model, workload.evaluate_on))
    assert (run.status, run.steps, run.examples) == ("finished", 128, 1024)
    np.testing.assert_allclose(
        run.trace.measurements["batch_loss"], batch_losses, rtol=1e-5
    )
    for one in run.evaluations:
        assert one.loss == pytest.approx(losses[one.step], rel=1e-5)


def test_losses_are_evaluated_at_the_same_places_whatever_the_batch():
    small, grown = (run_training(job_of(p)) for p in ("constant", "geodamp:delay=1"))
    assert [one.examples for one in small.evaluations][:3] == [0, 32, 56]
    assert len(small.evaluations) == 41
    # A batch that jumps over places is evaluated once, at its own end.
    slot = job_of().settings.slot
    for run in (small, grown):
        slots = [slot(one.examples) for one in run.evaluations]
        assert slots == sorted(set(slots))
        assert run.evaluations[0][:2] == (0, 0)
        assert run.evaluations[-1][:2] == (run.steps, run.examples)
    assert small.evaluations[0] == grown.evaluations[0]


def test_a_grid_of_updates_thins_out_as_the_batch_doubles():
    settings = job_of(max_examples=None, max_steps=100).settings
    slots = [settings.slot(e) for e in range(0, 8 * 800 + 1)]
    assert slots == sorted(slots)
    assert [settings.slot(800 * k) for k in (0, 1, 2, 4, 8)] == [0, 40, 60, 80, 100]


def test_a_growing_batch_follows_its_policy_and_its_rate_the_rule():
    run = run_training(job_of("geodamp:factor=2,delay=1", lr_rule="linear"))
    epochs = (run.trace.examples - run.trace.batch_sizes) / 256
    np.testing.assert_array_equal(run.trace.batch_sizes, 8 * 2.0 ** np.floor(epochs))
    np.testing.assert_allclose(run.trace.lrs, 0.1 * run.trace.batch_sizes / 8)
    np.testing.assert_array_equal(run.details["wish"], run.trace.batch_sizes)


def test_a_schedule_is_over_the_examples_whatever_the_batch():
    for policy in ("constant", "geodamp:factor=2,delay=1"):
        run = run_training(job_of(policy, schedule="linear"))
        before = run.trace.examples - run.trace.batch_sizes
        # A scheduler moves by whole updates of the first batch.
        expected = 0.1 * (1 - np.floor(before / 8) * 8 / 1024)
        np.testing.assert_allclose(run.trace.lrs, expected, rtol=1e-6)


def test_a_large_set_is_evaluated_less_often_than_it_takes_to_train():
    assert num_evaluations(10**6, 12_000) == 40
    for examples in (1, 24_000, 100_000, 10**7):
        num = num_evaluations(examples, 12_000)
        assert 10 <= num <= 40
        assert num == 10 or num * 12_000 <= 3 * examples
    assert num_evaluations(None, 12_000) == 40


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    for workload in (make(), make(model=with_dropout)):
        one, again, other = (
            run_training(job_of(workload=workload, seed=seed)) for seed in (0, 0, 1)
        )
        assert one.evaluations == again.evaluations
        assert one.evaluations != other.evaluations


def test_a_policy_that_reads_a_loss_of_its_own_has_it_counted_apart():
    run = run_training(job_of("adadamp:dwell=16", policy_fraction=0.25))
    questions = math.ceil(run.steps / 16)
    assert run.policy_examples == questions * 64
    assert run.trace.batch_sizes[-1] > 8
    assert run_training(job_of()).policy_examples == 0


def test_noise_is_read_for_those_who_follow_it_and_put_into_the_trace():
    run = run_training(job_of("noise-following", measure_every=4))
    assert {"noise_scale", "grad_sq_norm", "grad_variance", "seconds", "epoch"} <= set(
        run.trace.measurements
    )
    assert "noise_scale" not in run_training(job_of()).trace.measurements


def test_evaluations_are_no_training_time():
    run = run_training(job_of())
    assert run.seconds_evaluating > 0
    assert np.all(np.diff(run.trace.measurements["seconds"]) > 0)


def test_items_are_trained_on_as_their_tensors_are():
    as_items = make(train=Items(points(256, 0)))
    one, other = (run_training(job_of(workload=w)) for w in (make(), as_items))
    assert one.evaluations == other.evaluations


def test_a_run_that_diverges_says_so_and_keeps_what_was_sane():
    def wild(model, batch):
        return 1e3 * (model(batch[0]) ** 4).sum(1)

    run = run_training(job_of(workload=make(loss=wild), lr=1.0))
    assert run.status == "diverged"
    assert any("training is lost" in note for note in run.notes)
    assert run.evaluations[0].loss > 0


# Broken off and gone on with ----------------------------------------------------------


def interrupted(job, files, step):
    def press(record, _loss):
        if record.step == step:
            signal.raise_signal(signal.SIGINT)

    return run_training(job, files=files, on_update=press)


@pytest.mark.parametrize(
    "policy", ["adadamp:dwell=8", "noise-following", "geodamp:delay=1,factor=2"]
)
@pytest.mark.parametrize("model", [None, with_dropout], ids=["plain", "dropout"])
def test_a_run_broken_off_twice_goes_on_as_if_it_had_not_been(tmp_path, policy, model):
    changes = {"lr_rule": "adascale", "measure_every": 3, "schedule": "cosine"}
    workload = make() if model is None else make(model=model)
    job = job_of(policy, workload, **changes)
    whole = run_training(job)
    path = tmp_path / "run.pt"
    first = interrupted(job, RunFiles(path=path), 20)
    assert (first.status, first.steps) == ("interrupted", 20)
    interrupted(job, RunFiles(path=path, resume=True), 30)
    run = run_training(job, files=RunFiles(path=path, resume=True))
    assert run.evaluations == whole.evaluations
    assert timeless(run) == timeless(whole)
    assert run.policy_examples == whole.policy_examples
    files = RunFiles(path=path)
    files.remove()
    assert not files.is_there


def timeless(run):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.rows()]


def test_evaluations_made_after_the_last_checkpoint_are_made_again(tmp_path):
    job, path = job_of(), tmp_path / "run.pt"
    whole = run_training(job)
    interrupted(job, RunFiles(path=path), 20)
    beside = RunFiles(path=path).evaluations
    rows = json.loads(beside.read_text())
    beside.write_text(json.dumps([*rows, [24, 192, 9.0, 0.0], [28, 224, 9.0, 0.0]]))
    run = run_training(job, files=RunFiles(path=path, resume=True))
    assert run.evaluations == whole.evaluations


def test_a_run_that_had_ended_is_not_trained_again(tmp_path):
    job, path = job_of(), tmp_path / "run.pt"
    whole = run_training(job, files=RunFiles(path=path))
    seen = []
    run = run_training(
        job,
        files=RunFiles(path=path, resume=True),
        on_update=lambda record, _: seen.append(record.step),
    )
    assert seen == []
    assert run.evaluations == whole.evaluations
    assert run.rows() == whole.rows()


def test_without_resume_a_run_begins_anew(tmp_path):
    job, path = job_of(), tmp_path / "run.pt"
    interrupted(job, RunFiles(path=path), 20)
    assert run_training(job, files=RunFiles(path=path)).steps == 128


def test_a_checkpoint_of_another_policy_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    interrupted(job_of(), RunFiles(path=path), 20)
    with pytest.raises(InputError, match="the state is of another policy"):
        run_training(job_of("geodamp:delay=1"), files=RunFiles(path=path, resume=True))


# What is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0}, "`lr` must be positive"),
        ({"max_batch_size": 4}, "`max_batch_size` must be >= `initial_batch_size`"),
        ({"micro_batch_size": 16}, "`micro_batch_size` must be <= `initial"),
        ({"micro_batch_size": 0}, "`micro_batch_size` must be a whole number"),
        ({"max_examples": None}, "an end must be given"),
        ({"max_examples": 0}, "`max_examples` must be a whole number"),
        ({"max_steps": 0}, "`max_steps` must be a whole number"),
        ({"measure_every": 0}, "`measure_every` must be a whole number"),
        ({"policy_fraction": 1.5}, "`evaluate_fraction` must be above 0"),
        ({"schedule": "cosin"}, "cosin"),
        (
            {"schedule": "cosine", "max_examples": None, "max_steps": 9},
            "a schedule counts examples",
        ),
    ],
)
def test_settings_out_of_order_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        job_of(**changes)


def test_a_workload_whose_items_hold_several_examples_is_refused():
    with pytest.raises(InputError, match="of which an item holds several"):
        run_training(job_of(workload=make(example_count=lambda item: 2)))


def test_an_error_of_the_workload_is_its_own():
    def broken(model, batch):
        raise KeyError("labels")

    with pytest.raises(WorkloadFailedError, match="KeyError"):
        run_training(job_of(workload=make(loss=broken)))


def test_a_policy_reads_training_losses_unless_told():
    train, held_out = range(100), range(50)
    assert policy_examples(train, held_out, on_train=False, fraction=None) == (
        "train",
        0.5,
    )
    assert policy_examples(train, held_out, on_train=True, fraction=0.1) == (
        "train",
        0.1,
    )


def test_batch_normalization_is_as_it_would_be_without_evaluations():
    def normalised(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))

    kept = []

    def remembering(seed):
        kept.append(normalised(seed))
        return kept[-1]

    workload = make(model=remembering)
    run_training(job_of(workload=workload))
    model, optimizer = normalised(0), None
    optimizer = sgd(model.parameters(), 0.1)
    stream = ExampleStream(workload.train, derived_seed(0, 1))
    for _ in range(128):
        optimizer.zero_grad()
        cross_entropy(model, stream.next(8)).mean().backward()
        optimizer.step()
    torch.testing.assert_close(
        kept[-1][1].running_mean, model[1].running_mean, rtol=1e-4, atol=1e-6
    )
