import json
import math

import pytest
from javascript import call

from rightbatch.cli import main
from rightbatch.reporting import whatif

CHOICES = {
    "constant": ["--comm-seconds", "0.02"],
    "none": ["--comm-seconds", "0", "--candidates", "16:4096:x2"],
    "ring": ["--bandwidth", "1e9", "--latency", "1e-4", "--parameters", "1000000"],
    "knee": ["--law", "knee", "--comm-seconds", "0.01", "--overlap", "2"],
    "floor": ["--law", "floor", "--comm", "server:0.003", "--overlap", "inf"],
    "checked": ["--evaluate-every", "50", "--evaluate-examples", "2000"],
    "memory": ["--max-micro-batch-size", "25", "--max-accumulation-steps", "9"],
}


@pytest.fixture(scope="module", params=list(CHOICES))
def real_plan(request, tmp_path_factory):
    """What `plan` prints for tables that lie near known laws."""
    folder = tmp_path_factory.mktemp(request.param)
    steps = {b: 1000 + 7e5 / (b - 2) for b in (8, 32, 128, 512, 2048)}
    wobble = (0.97, 1.0, 1.04)
    runs = [f"{b},{s * w:.0f}" for b, s in steps.items() for w in wobble]
    times = [f"{b},{0.004 + 0.001 * max(b, 20):.6f}" for b in (1, 4, 16, 64, 256, 512)]
    (folder / "r.csv").write_text("\n".join(["batch_size,steps", *runs]))
    (folder / "t.csv").write_text("\n".join(["batch_size,seconds", *times]))
    choices = CHOICES[request.param]
    if not any("comm" in word or "bandwidth" in word for word in choices):
        choices = [*choices, "--comm-seconds", "0.02"]
    files = ["--runs", str(folder / "r.csv"), "--times", str(folder / "t.csv")]
    report = ["--report", str(folder / "report.html"), "--json"]
    output = folder / "plan.json"
    with pytest.MonkeyPatch.context() as patch, output.open("w") as stream:
        patch.setattr("sys.stdout", stream)
        with pytest.raises(SystemExit) as stopped:
            main(["plan", *files, *report, *choices, "--replicas", "1,2,3,16"])
    assert stopped.value.code in {0, None}
    return json.loads(output.read_text())


def test_with_its_first_numbers_the_panel_gives_the_plans_answers(real_plan):
    model = whatif.what_if(real_plan)
    assert model is not None
    state = call("laws.startOf", model["knobs"])
    problem = call("laws.problemOf", model, state)
    for entry in real_plan["optimal"]:
        found = call("laws.plan", problem, entry["num_replicas"])
        assert found["batch_size"] == entry["batch_size"]
        assert found["limited_by"] == entry["limited_by"]
        assert found["within_5_percent"] == entry["within_5_percent"]
        for key in ("steps", "seconds", "speedup", "seconds_per_step"):
            assert found[key] == pytest.approx(entry[key], rel=1e-9)


def test_every_knob_starts_on_its_slider_and_within_its_bounds(real_plan):
    model = whatif.what_if(real_plan)
    assert model is not None
    for knob in model["knobs"]:
        assert knob["min"] <= knob["value"] <= knob["max"]
        place = call("laws.placeOf", knob, knob["value"])
        assert 0 <= place <= knob["places"]
        assert call("laws.valueAt", knob, place) == knob["value"]
        ends = [call("laws.valueAt", knob, place) for place in (0, knob["places"])]
        assert ends[0] < ends[1]
        assert all(call("laws.isAllowed", knob, end) for end in ends)


def test_the_model_can_be_written_as_json(real_plan):
    model = whatif.what_if(real_plan)
    assert json.loads(json.dumps(model, allow_nan=False)) == model


def test_a_table_whose_s_min_is_negative_starts_from_it(plan_document):
    fit = plan_document["convergence"][0]
    fit["min_steps"]["value"] = -3.5
    fit["fitted_range"] = [1.0, 512.0]
    model = whatif.what_if(plan_document)
    assert model is not None
    state = call("laws.startOf", model["knobs"])
    assert state["S_min"] == -3.5
    found = call("laws.plan", call("laws.problemOf", model, state), 1)
    assert found["batch_size"] == 512


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("convergence", "law", "loss"),
        ("convergence", "min_steps", {"value": None, "low": 3, "high": None}),
        ("convergence", "min_examples", None),
        ("step_time", "communication", {"kind": "telepathy"}),
        ("step_time", "overhead_seconds", None),
        ("step_time", "overlap_exponent", {"value": None}),
    ],
)
def test_where_a_law_is_not_known_there_is_no_panel(plan_document, part, key, value):
    found = plan_document[part]
    (found[0] if isinstance(found, list) else found)[key] = value
    assert whatif.what_if(plan_document) is None


def test_newer_parts_of_the_laws_are_carried_along(plan_document):
    check = {"every": 10, "num_examples": 100}
    check |= {"seconds_per_example": None, "shared": True}
    plan_document["step_time"] |= {"overlap_exponent": "Infinity", "evaluation": check}
    plan_document["limits"] = {"max_batch_size": 900, "max_micro_batch_size": 64}
    plan_document["convergence"][0]["min_batch_size"] = {"value": 1.5}
    model = whatif.what_if(plan_document)
    assert model is not None
    assert model["step_time"]["overlap_exponent"] == "Infinity"
    assert model["step_time"]["evaluation"] == check
    assert model["convergence"]["min_batch_size"] == 1.5
    assert model["limits"]["max_batch_size"] == 900
    assert model["limits"]["max_micro_batch_size"] == 64


@pytest.mark.parametrize("value", [3e-9, 6.5e-7, 0.02, 41.0, 0.0])
def test_seconds_are_shown_in_a_unit_that_suits_them(plan_document, value):
    plan_document["step_time"]["overhead_seconds"]["value"] = value
    model = whatif.what_if(plan_document)
    assert model is not None
    knob = next(knob for knob in model["knobs"] if knob["name"] == "o")
    assert value == 0 or 1 <= value / knob["size"] < 1000
    assert math.log10(knob["step"]) == pytest.approx(round(math.log10(knob["step"])))


def test_the_examples_have_their_unit(plan_document):
    plan_document["convergence"][0]["example_unit"] = "tok<en"
    model = whatif.what_if(plan_document)
    assert model is not None
    page = whatif.panel(model)
    assert "fewest tok&lt;ens" in page
    assert "tok<en" not in page


def test_without_the_memory_the_plan_went_by_there_is_no_panel(plan_document):
    plan_document["optimal"][-1]["accumulation_steps"] = 2
    assert whatif.what_if(plan_document) is None
    plan_document["inputs"]["max_micro_batch_size"] = 64
    assert whatif.what_if(plan_document) is not None


def test_there_is_no_panel_where_small_batches_never_arrived(plan_document):
    assert whatif.what_if(plan_document) is not None
    plan_document["limits"] = {"min_batch_size": 33}
    assert whatif.what_if(plan_document) is None
