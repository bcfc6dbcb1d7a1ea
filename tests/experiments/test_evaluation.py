import pytest
import tiny_workload
import torch
from torch.nn import functional
from torch.utils.data import TensorDataset

from rightbatch.errors import WorkloadError, WorkloadFailedError
from rightbatch.experiments.evaluation import Evaluation, HardestFirst, evaluating
from rightbatch.workload import Target

TINY = tiny_workload.tiny()
ITEMS = tiny_workload.make(evaluate_on=tiny_workload.Items(TINY.evaluate_on))
BOTH = pytest.mark.parametrize("workload", [TINY, ITEMS], ids=["tensors", "items"])


@BOTH
def test_values_come_in_the_order_of_the_set(workload):
    model = workload.model(0)
    inputs, labels = TINY.evaluate_on.tensors
    with torch.no_grad():
        wanted = functional.cross_entropy(model(inputs), labels, reduction="none")
    found = Evaluation(workload).values(model)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, wanted.double())
    assert Evaluation(workload).mean_loss(model) == pytest.approx(float(wanted.mean()))


@pytest.mark.parametrize(("shape", "rows"), [((4, 1, 1), 32), ((4,), 100)])
def test_images_are_checked_a_few_at_a_time(shape, rows):
    inputs, labels = TINY.evaluate_on.tensors
    images = TensorDataset(inputs.unflatten(1, shape), labels)
    seen = []

    def loss(model, batch):
        seen.append(len(batch[0]))
        flat = batch[0].flatten(1)
        return functional.cross_entropy(model(flat), batch[1], reduction="none")

    found = Evaluation(tiny_workload.make(evaluate_on=images, loss=loss))
    model = TINY.model(0)
    torch.testing.assert_close(found.values(model), Evaluation(TINY).values(model))
    assert max(seen) == rows


def test_the_target_metric_is_what_is_evaluated():
    target = Target(metric="accuracy", value=0.9, direction="max")
    evaluation = Evaluation(tiny_workload.make(target=target))
    assert set(evaluation.values(TINY.model(0)).tolist()) == {0.0, 1.0}


@BOTH
def test_ranked_batches_hold_every_example_once_the_hardest_first(workload):
    evaluation, model = Evaluation(workload), workload.model(0)
    values = evaluation.values(model)
    parts = [evaluation.metric(model, batch) for batch in evaluation.ranked(values)]
    torch.testing.assert_close(torch.cat(parts).sort()[0], values.sort()[0])
    means = [float(part.detach().mean()) for part in parts]
    assert means == sorted(means, reverse=True)


@BOTH
@pytest.mark.parametrize("ranked_by", [0, 1])
def test_hardest_first_gives_the_answer_of_evaluating_everything(workload, ranked_by):
    evaluation, model = Evaluation(workload), workload.model(0)
    hardest_first = HardestFirst(evaluation)
    hardest_first.rank(evaluation.values(workload.model(ranked_by)))
    mean = float(evaluation.values(model).mean())
    for factor in (0.1, 0.9, 0.9999, 1.0, 1.1):
        assert hardest_first.may_be_within(model, factor * mean) == (factor >= 1)


def test_hardest_first_stops_once_the_bound_is_passed():
    seen = []

    def counted(model, batch):
        seen.append(len(batch[0]))
        return tiny_workload.cross_entropy(model, batch)

    evaluation, model = Evaluation(tiny_workload.make(loss=counted)), TINY.model(0)
    hardest_first = HardestFirst(evaluation)
    hardest_first.rank(evaluation.values(model))
    seen.clear()
    assert not hardest_first.may_be_within(model, 0.01)
    assert seen == [32]


def test_nothing_is_given_up_where_values_may_be_negative():
    hardest_first = HardestFirst(Evaluation(TINY))
    hardest_first.rank(torch.full((100,), -1.0))
    assert hardest_first.may_be_within(TINY.model(0), -100.0)


def test_an_evaluated_model_trains_on_afterwards_even_after_an_error():
    model = tiny_workload.with_dropout(0)

    def failed():
        with evaluating(model):
            assert not model.training
            raise KeyError

    with pytest.raises(KeyError):
        failed()
    assert model.training
    assert torch.is_grad_enabled()


def test_a_loss_that_is_a_mean_is_refused():
    def mean(model, batch):
        return tiny_workload.cross_entropy(model, batch).mean()

    with pytest.raises(WorkloadError, match="leave the mean out"):
        Evaluation(tiny_workload.make(loss=mean)).values(TINY.model(0))


def test_an_error_while_reading_the_examples_is_shown():
    def collate(items):
        raise ZeroDivisionError("unreadable")

    workload = tiny_workload.make(collate=collate)
    with pytest.raises(WorkloadFailedError, match="ZeroDivisionError: unreadable"):
        Evaluation(workload)


def test_items_with_several_values_are_not_ranked_but_evaluated_whole():
    def two_values(model, batch):
        return torch.cat([tiny_workload.cross_entropy(model, batch)] * 2)

    workload = tiny_workload.make(loss=two_values)
    evaluation, model = Evaluation(workload), workload.model(0)
    hardest_first = HardestFirst(evaluation)
    values = evaluation.values(model)
    hardest_first.rank(values)
    assert len(values) == 200
    assert hardest_first.may_be_within(model, 1e-9)
