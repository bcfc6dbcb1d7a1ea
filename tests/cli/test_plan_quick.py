"""``plan --quick``: a noise scale in place of runs, times relative to one another."""

from types import SimpleNamespace

import pytest

from rightbatch.cli import plan_quick
from rightbatch.cli.plan_noise import BAND, NoisePlan, noise_plan_results
from rightbatch.experiments.noise_record import NoiseMeasurement
from rightbatch.fitting import Interval
from rightbatch.gradients import NoiseReading
from rightbatch.noise_scale import GradientMoments, MomentAverage
from rightbatch.step_time import ConstantCommunication, StepTimeLaw
from rightbatch.training_time import BatchLimits

TINY = "tiny_workload:tiny"
# The shortest that still measures: two seconds of a test are spent on timing steps.
SHORT = ("--timing-seconds", 0.2, "--replicas", "1,2", "--comm-seconds", 0.001)
PLAN_KEYS = {
    "optimal",
    "convergence",
    "step_time",
    "runs",
    "verification",
    "warnings",
    "noise_scale",
    "band",
    "measurements",
    "sentence",
}
ENTRY_KEYS = {
    "num_replicas",
    "batch_size",
    "lr",
    "micro_batch_size",
    "accumulation_steps",
    "steps",
    "seconds",
    "speedup",
    "limited_by",
    "within_5_percent",
}


def a_plan(phi=400.0, low=300.0, high=500.0, **changes):
    given = {
        "workload": "made up",
        "phi": Interval(value=phi, low=low, high=high, level=0.95, unit="examples"),
        "is_bound": False,
        "law": StepTimeLaw(
            overhead_seconds=0.01,
            seconds_per_example=1e-4,
            saturation_batch_size=1,
            communication=ConstantCommunication(seconds=0.03),
        ),
        "limits": BatchLimits(max_batch_size=100_000),
        "replicas": (1, 4),
    }
    return NoisePlan(**(given | changes))


NOISE = {"warnings": ["first", "second"], "run_average": {"value": 400.0}}


# The closed form ----------------------------------------------------------------------


def test_the_best_batch_is_the_closed_form_with_the_overhead_at_one_replica_too():
    one, four = noise_plan_results(a_plan(), NOISE, None)["optimal"]
    # eq. 9: sqrt(phi (o + delta) P / gamma).
    assert one["batch_size"] == pytest.approx((400 * 0.01 / 1e-4) ** 0.5, abs=1)
    assert four["batch_size"] == pytest.approx((400 * 0.04 * 4 / 1e-4) ** 0.5, rel=0.01)


def test_nothing_that_needs_the_fewest_steps_is_told():
    results = noise_plan_results(a_plan(), NOISE, None)
    for entry in results["optimal"]:
        assert entry["steps"] is entry["seconds"] is entry["lr"] is None
        assert entry["seconds_interval"] is entry["seconds_with_idle"] is None
        assert entry["seconds_per_step"] > 0
    assert results["optimal"][0]["speedup"] == pytest.approx(1)
    for key in ("convergence", "runs", "verification"):
        assert results[key] == []


def test_the_interval_of_the_batch_is_that_of_the_noise_scale():
    (one, _) = noise_plan_results(a_plan(), NOISE, None)["optimal"]
    size = one["batch_size_interval"]
    assert size["low"] == pytest.approx((300 * 100) ** 0.5, abs=1)
    assert size["high"] == pytest.approx((500 * 100) ** 0.5, abs=1)
    assert size["level"] == 0.95
    (one, _) = noise_plan_results(a_plan(high=None), NOISE, None)["optimal"]
    assert one["batch_size_interval"]["high"] is None


def test_an_end_at_the_largest_batch_allowed_is_open():
    limited = a_plan(limits=BatchLimits(max_batch_size=210))
    (one, _) = noise_plan_results(limited, NOISE, None)["optimal"]
    assert one["batch_size"] == 200
    assert one["batch_size_interval"]["low"] == pytest.approx(173, abs=1)
    assert one["batch_size_interval"]["high"] is None


def test_without_a_factor_both_ends_of_the_published_band_are_planned():
    results = noise_plan_results(a_plan(), NOISE, None)
    assert results["noise_scale"]["label"] == "uncalibrated"
    assert BAND == (1 / 8, 20)
    for name, phi in (("low", 50), ("high", 8000)):
        end = results["band"][name]
        assert end["phi"] == phi
        best = end["optimal"][0]["batch_size"]
        assert best == pytest.approx((phi * 100) ** 0.5, abs=1)
        # The time lost by the recommended batch, from the law itself.
        used = results["optimal"][0]["batch_size"]
        lost = ((1 + phi / used) * (0.01 + 1e-4 * used)) / (
            (1 + phi / best) * (0.01 + 1e-4 * best)
        ) - 1
        assert end["optimal"][0]["time_lost"] == pytest.approx(lost, rel=1e-6)
    assert "uncalibrated" in results["sentence"]


def test_a_factor_makes_the_band_the_noise_scale_s_own_interval():
    results = noise_plan_results(a_plan(high=None), NOISE, 1.5)
    assert results["noise_scale"]["label"] == "calibrated factor 1.5"
    assert results["band"]["low"]["phi"] == 300
    assert results["band"]["high"] is None
    assert results["warnings"][0] == "second"


def test_a_bound_from_below_makes_batches_known_from_below():
    results = noise_plan_results(a_plan(is_bound=True), NOISE, None)
    assert all(entry["batch_size_is_lower_bound"] for entry in results["optimal"])
    assert any("from below alone" in text for text in results["warnings"])


def test_replicas_that_only_cost_are_said_to_be_slower():
    slow = StepTimeLaw(
        overhead_seconds=0.001,
        seconds_per_example=1e-6,
        saturation_batch_size=1,
        communication=ConstantCommunication(seconds=10.0),
    )
    results = noise_plan_results(a_plan(law=slow), NOISE, None)
    assert any("4 replicas are slower than 1" in text for text in results["warnings"])


# The command --------------------------------------------------------------------------


@pytest.fixture
def planned(rightbatch):
    return lambda *words: rightbatch("plan", TINY, "--quick", *SHORT, *words)


def test_the_document_keeps_the_keys_of_a_plan(planned, tmp_path):
    ended = planned("--json")
    assert ended.code == 0, ended.err
    document = ended.document
    assert document["command"] == "plan"
    assert document.keys() >= PLAN_KEYS
    for entry in document["optimal"]:
        assert entry.keys() >= ENTRY_KEYS
    assert document["convergence"] == document["runs"] == []
    noise = document["noise_scale"]
    assert noise["phi"]["value"] == document["run_average"]["value"]
    assert document["inputs"]["quick"] is True
    assert document["step_time"]["curve"]["batch_size"]
    assert [one["num_replicas"] for one in document["optimal_measured"]] == [1, 2]
    assert all(one["seconds"] is None for one in document["optimal_measured"])
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "What it does not mean" in text
    assert "uncalibrated" in text


def test_a_person_reads_the_band_beside_the_best_batch(planned):
    ended = planned("--factor", 2)
    assert ended.code == 0
    assert "calibrated factor 2" in " ".join(ended.out.split())
    assert "Gradient noise along training" in ended.out
    assert "Train at" in ended.out


def test_a_measurement_short_of_the_target_says_so(rightbatch):
    words = ("--quick", *SHORT, "--noise-seconds", 0.3, "--lr", 0.02, "--json")
    document = rightbatch("plan", "tiny_workload:slow", *words).document
    assert document["status"] == "stopped"
    assert "short of the target" in document["warnings"][1]


def test_no_run_is_kept(planned, tmp_path):
    planned("--report", "plan.html")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.html"]


def test_a_noise_scale_that_cannot_be_told_ends_with_3(planned, monkeypatch):
    monkeypatch.setattr(plan_quick, "_known", lambda _: None)
    ended = planned()
    assert ended.code == 3
    assert "no noise scale could be read" in ended.last_line


def test_ctrl_c_while_timing_keeps_the_noise_scale(planned, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(plan_quick, "_timings", stop)
    ended = planned("--json")
    assert ended.code == 130
    assert ended.document["measurements"]
    assert "the noise scale is kept" in ended.last_line


def row_of(squares, steps=20):
    average = MomentAverage()
    for square in squares:
        moments = GradientMoments(grad_sq_norm=square, grad_variance=50.0)
        average = average.add(moments, examples=64)
    reading = NoiseReading(estimate=average.noise_scale(), source="units")
    return NoiseMeasurement(
        first_step=0, step=steps, examples=64 * steps, loss=1.0, reading=reading
    )


def test_a_plan_rests_on_what_is_resolved_or_on_a_bound_from_below():
    def known(*rows):
        return plan_quick._known(SimpleNamespace(measurements=rows))

    steady, hidden = row_of((0.9, 1.1, 1.0)), row_of((-1.0, 3.0, -2.0, 2.0))
    assert known(steady).value == pytest.approx(50)
    bound = known(hidden)
    assert bound.value == hidden.reading.lower_bound > 0
    assert (bound.low, bound.high) == (bound.value, None)
    assert bound.definition.endswith("at least")
    assert known() is known(row_of((1.0,))) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--verify"], "--verify has no use with --quick"),
        (["--target", 0.3], "--target has no use with --quick"),
        (["--runs", "r.csv", "--times", "t.csv"], "--runs has no use with --quick"),
        (["--seeds", 2], "--seeds has no use"),
        (["--batch-sizes", "4,16"], "--batch-sizes has no use"),
        (["--resume"], "--resume has no use"),
        (["--workload", "x"], "--workload has no use"),
        (["--lr", "0.1,0.2"], "--lr: one at a time with --quick, got 2"),
        (["--lr", "-1"], "--lr: must be positive"),
        (["--factor", 0], "`--factor` must be positive"),
        (["--noise-seconds", 0], "--noise-seconds"),
        (["--replicas", "1,512"], "512 replicas cannot each have an example"),
    ],
)
def test_what_makes_no_sense_together_is_refused(planned, words, said):
    ended = planned(*words)
    assert ended.code == 2
    assert said in ended.last_line


@pytest.mark.parametrize("words", [("--factor", 2), ("--noise-seconds", 3)])
def test_options_of_a_quick_plan_need_it(rightbatch, words):
    ended = rightbatch("plan", TINY, *words)
    assert ended.code == 2
    assert f"{words[0]} goes with --quick alone" in ended.last_line


def test_an_unknown_workload_is_refused(rightbatch):
    ended = rightbatch("plan", "tiny_workload:tinny", "--quick")
    assert ended.code == 2
    assert "tinny" in ended.last_line


def test_the_smallest_batch_may_be_too_small_to_time(rightbatch, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "import torch\nfrom torch import nn\nfrom tiny_workload import make\n"
        "def model(seed):\n    torch.manual_seed(seed)\n"
        "    return nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))\n"
        "def own():\n    return make(name='own', model=model)\n"
    )
    ended = rightbatch("plan", f"{path}:own", "--quick", *SHORT, "--json")
    assert ended.code == 0, ended.err
    assert "batch size 1 cannot be timed, left out" in ended.err
    assert any("Batch normalization" in text for text in ended.document["warnings"])
