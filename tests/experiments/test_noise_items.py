"""Gradient noise of workloads whose items count for several examples, and targets
that are no mean over examples."""

import pytest
import torch
from tiny_workload import Items, cross_entropy, make, points

from rightbatch.errors import InputError
from rightbatch.experiments.noise_run import NoiseRun
from rightbatch.experiments.noise_settings import NoiseSettings, unit_sizes
from rightbatch.workload import Target


def settings_of(**changes):
    given = {
        "batch_size": 32,
        "lr": 0.1,
        "unit_sizes": unit_sizes(32),
        "max_steps": 20,
        "window_ends": (20,),
    }
    return NoiseSettings(**(given | changes))


def ended(workload, **changes):
    run = NoiseRun(workload, settings_of(**changes))
    run.advance()
    return run


def test_items_that_count_for_several_examples_are_weighed_by_them():
    class Sentences(Items):
        def __getitem__(self, index):
            inputs, label = super().__getitem__(index)
            return inputs.expand(1 + index % 3, 4), label.expand(1 + index % 3)

    def joined(items):
        return tuple(torch.cat(parts) for parts in zip(*items, strict=True))

    workload = make(
        train=Sentences(points(256, 0)),
        collate=joined,
        example_count=lambda item: len(item[1]),
        evaluate_on=Sentences(points(100, 1)),
    )
    rows = ended(workload).measurements
    assert rows[-1].examples >= 20 * 32
    assert rows[-1].reading.estimate.examples == rows[-1].examples


def test_items_that_see_each_other_are_refused_though_they_count_for_several():
    class Pairs(Items):
        def __getitem__(self, index):
            inputs, label = super().__getitem__(index)
            return inputs.expand(2, 4), label.expand(2)

    def joined(items):
        inputs, labels = (torch.cat(parts) for parts in zip(*items, strict=True))
        return {"inputs": inputs, "labels": labels, "items": torch.tensor(len(items))}

    def losses(model, batch):
        return cross_entropy(model, (batch["inputs"], batch["labels"]))

    def depends(model, batch):
        return losses(model, batch) * batch["items"]

    workload = {
        "train": Pairs(points(256, 0)),
        "collate": joined,
        "example_count": lambda item: 2,
    }
    assert NoiseRun(make(loss=losses, **workload), settings_of())
    with pytest.raises(InputError, match="depends on the others of its batch"):
        NoiseRun(make(loss=depends, **workload), settings_of())


def test_the_target_may_be_a_metric_of_the_whole_set():
    seen = []

    def score(model, dataset):
        seen.append(len(dataset))
        return float(len(seen))

    workload = make(
        target=Target(metric="score", value=3.0, direction="max"),
        corpus_metrics={"score": score},
    )
    run = ended(workload, max_steps=1000, target=3.0)
    assert run.status == "reached"
    assert len(seen) == 3
    assert set(seen) == {len(workload.evaluate_on)}
