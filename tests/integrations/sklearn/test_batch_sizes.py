"""The batches an estimator trains with, and what is left of an epoch."""

import pytest
from integrations.example_estimators import blobs, classifier, net, tensors

from rightbatch.errors import InputError
from rightbatch.integrations.sklearn import LocalGradients
from rightbatch.policies import AdaDamp, Clip, Constant


@pytest.mark.parametrize(
    ("policy", "size"),
    [
        (Constant(batch_size=1), 1),
        (Constant(batch_size=7), 7),
        (Clip(Constant(batch_size=90), high=20), 20),
        (AdaDamp(initial_batch_size=5), 5),
        (Constant(batch_size=500), 60),
        ("full-batch", 60),
        ("constant", 32),
    ],
)
def test_a_policy_begins_with_the_batch_it_asks_for(policy, size):
    fitted = classifier(policy=policy, max_epochs=1).fit(*blobs())
    assert fitted.batch_size_curve_[0] == size
    assert sum(fitted.batch_size_curve_) == 60


def test_a_size_of_one_s_own_is_what_batches_are_multiples_of():
    made = classifier(policy=Constant(batch_size=8), micro_batch_size=12, max_epochs=1)
    assert set(made.fit(*blobs()).batch_size_curve_) == {12}


NORMED = {"module": net(norm=True), "policy": "constant"}


@pytest.mark.parametrize("count", [2, 3, 9, 31, 33, 34, 35, 36, 60])
def test_a_pass_with_batch_normalization_is_each_example_once(count):
    x, y = blobs(60)
    made = classifier(**NORMED).partial_fit(x[:count], y[:count], classes=[0, 1, 2])
    assert sum(made.batch_size_curve_) == count
    made.partial_fit(x[:count], y[:count])
    assert sum(made.batch_size_curve_) == 2 * count


def test_a_single_example_left_goes_into_the_next_epoch_of_a_fit():
    x, y = blobs(33)
    sizes = classifier(**NORMED, max_epochs=3).fit(x, y).batch_size_curve_
    assert sizes.tolist() == [32, 32, 32, 32]
    sizes = classifier(**NORMED, max_epochs=2).fit(*blobs(36)).batch_size_curve_
    assert sizes.tolist() == [32, 4, 32, 4]


@pytest.mark.parametrize(
    ("count", "least", "size"),
    [(36, 4, 32), (38, 4, 36), (67, 32, 64), (262, 32, 256), (99, 32, 64)],
)
def test_no_pass_is_a_single_example_however_many_are_wanted(count, least, size):
    x, y = blobs(count)
    source = LocalGradients(
        net(norm=True), len, tensors(x, y), micro_batch_size=least, seed=0
    )
    stream = source.stream()
    for _ in range(12):
        passes = stream.next(size, min_units=8).passes
        assert min(one.num_examples for one in passes) >= 2
    assert stream.examples == 6 * count


def test_noise_is_read_with_batch_normalization_and_a_short_tail():
    x, y = blobs(38)
    made = classifier(module=net(norm=True), initial_batch_size=16, max_epochs=8)
    made.set_params(micro_batch_size=4).fit(x, y)
    assert sum(made.batch_size_curve_) == 8 * 38
    assert any(record.noise_scale for record in made.history_)


@pytest.mark.parametrize("settings", [{"initial_batch_size": 1}, {}])
def test_batch_normalization_of_one_row_is_refused(settings):
    x, y = blobs(20) if settings else blobs(1, classes=1)
    with pytest.raises(InputError, match="needs two examples in a .* nn.LayerNorm"):
        classifier(module=net(norm=True), **settings).fit(x, y)
