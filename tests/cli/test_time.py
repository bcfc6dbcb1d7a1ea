"""``time --table``, and the options that describe a machine."""

import math
import os
import subprocess
import sys

import pytest

from rightbatch.cli.communication import CommunicationChoice, parse_communication
from rightbatch.cli.machine import MachineChoice
from rightbatch.errors import InputError
from rightbatch.step_time import (
    ConstantCommunication,
    Evaluation,
    HalvingDoublingCommunication,
    LinearCommunication,
    NoCommunication,
    RingCommunication,
    TwoLevelCommunication,
)

RING = RingCommunication(latency_seconds=4e-4, bytes_per_second=1.0, num_bytes=0.01)


@pytest.fixture
def valley(tmp_path):
    """A table whose seconds fall and then rise with the number of replicas."""
    lines = ["batch_size,num_replicas,seconds"]
    for count in (1, 2, 4, 8, 16, 32, 64):
        for batch in (64, 256, 1024, 4096):
            compute = 0.004 + 1e-3 * max(batch / count, 16)
            lines.append(f"{batch},{count},{compute + RING.comm_seconds(count)}")
    path = tmp_path / "TIMES.csv"
    path.write_text("\n".join(lines))
    return path


def test_a_table_of_times_is_fitted_and_its_valley_recognised(rightbatch, valley):
    ended = rightbatch("time", "--table", valley, "--json")
    assert ended.code == 0
    step_time = ended.document["step_time"]
    assert step_time["communication"]["kind"] == "ring"
    assert step_time["communication"]["latency_seconds"] == pytest.approx(
        4e-4, rel=0.02
    )
    assert step_time["saturation_batch_size"]["value"] == pytest.approx(16, rel=0.02)
    assert step_time["overlap_exponent"]["value"] == 1
    assert step_time["evaluation"] is None
    assert step_time["runners_up"][0]["law"] == "ring"
    assert "valley" in [one["kind"] for one in step_time["findings"]]
    assert len(ended.document["times"]) == 28
    assert ended.document["inputs"]["table"] == str(valley)


def test_a_person_reads_the_law_and_the_findings(rightbatch, valley):
    ended = rightbatch("time", "--table", valley)
    assert "ring, 400 µs latency, 10 ms for the bytes" in ended.out
    assert "a step is fastest on 4 replicas" in " ".join(ended.out.split())


def test_a_table_of_times_needs_no_torch(valley):
    code = (
        "import sys\nfrom rightbatch.cli import main\n"
        f"try: main(['time', '--table', {str(valley)!r}, '--quiet'])\n"
        "finally: assert 'torch' not in sys.modules, 'torch'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_given_law_and_overlap_are_held(rightbatch, valley):
    ended = rightbatch(
        "time", "--table", valley, "--comm", "server:1ms", "--overlap", "inf", "--json"
    )
    step_time = ended.document["step_time"]
    assert step_time["communication"] == {
        "kind": "linear",
        "seconds_per_replica": 0.001,
    }
    assert step_time["overlap_exponent"] == "Infinity"
    assert ended.document["inputs"]["overlap"] == "inf"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits-mlp"], "--table takes its times from a file"),
        (["--replicas", "1,2"], "--table takes its times from a file"),
        (["--comm", "ring:bandwidth=1e9"], "do not tell the size of the model"),
        (["--overlap", "0.5"], "must be a number from 1, or inf, got '0.5'"),
        (["--comm", "server:1", "--comm-seconds", "1"], "give one of"),
    ],
)
def test_options_that_contradict_a_table_are_refused(
    rightbatch, valley, words, message
):
    ended = rightbatch("time", "--table", valley, *words)
    assert ended.code == 2
    assert message in ended.last_line


def test_a_table_of_mixed_units_is_refused_by_name(rightbatch, tmp_path):
    path = tmp_path / "mixed.csv"
    path.write_text("batch_size,seconds\n8,.1\n8,100\n16,.2")
    ended = rightbatch("time", "--table", path)
    assert ended.code == 2
    assert "mixed.csv" in ended.last_line
    assert "both 0.1 and 100" in ended.last_line


def test_more_replicas_than_examples_are_refused_with_file_and_line(
    rightbatch, tmp_path
):
    path = tmp_path / "local.csv"
    path.write_text("batch_size,num_replicas,seconds\n64,1,.1\n\n2,4,.02\n128,1,.2\n")
    ended = rightbatch("time", "--table", path)
    assert ended.code == 2
    assert "local.csv: row 4, column num_replicas must not be above" in ended.last_line
    assert "multiply a local one by its replicas (8 here)" in ended.last_line


def test_two_machines_in_one_table_are_refused_by_name(rightbatch, tmp_path):
    path = tmp_path / "mixed.csv"
    rows = [f"{size},{0.02 * size}\n{size},{0.1 * size}" for size in (8, 16, 32, 64)]
    path.write_text("batch_size,seconds\n" + "\n".join(rows))
    ended = rightbatch("time", "--table", path)
    assert ended.code == 2
    assert "mixed.csv" in ended.last_line
    assert "two machines or workloads" in ended.last_line


# --- --comm ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", NoCommunication()),
        ("constant:.02", ConstantCommunication(seconds=0.02)),
        ("constant:seconds=20ms", ConstantCommunication(seconds=0.02)),
        ("server:.002", LinearCommunication(seconds_per_replica=0.002)),
        (
            "ring:latency=5e-6,bandwidth=1e10",
            RingCommunication(
                latency_seconds=5e-6, bytes_per_second=1e10, num_bytes=400
            ),
        ),
        (
            "halving-doubling:latency=5us,bandwidth=100 Gbit/s,bytes=1GB",
            HalvingDoublingCommunication(
                latency_seconds=5e-6, bytes_per_second=1.25e10, num_bytes=1e9
            ),
        ),
        (
            "two-level:replicas=8,inner-bandwidth=300GB/s,outer-bandwidth=3GB/s",
            TwoLevelCommunication(
                replicas_per_node=8,
                inner_latency_seconds=0.0,
                inner_bytes_per_second=3e11,
                outer_latency_seconds=0.0,
                outer_bytes_per_second=3e9,
                num_bytes=400,
            ),
        ),
    ],
)
def test_a_law_of_communication_is_read_from_words(text, expected):
    found = parse_communication(text, num_bytes=400)
    assert found.kind == expected.kind
    for key, value in expected.to_dict().items():
        if key != "kind":
            assert found.to_dict()[key] == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rign:bandwidth=1", r"`kind` cannot be 'rign'. \(did you mean ring"),
        ("ring:bandwith=1", r"ring has no 'bandwith'. \(did you mean bandwidth"),
        ("ring:latency=1us", "ring needs bandwidth=.."),
        ("ring:bandwidth=1,bandwidth=2", "bandwidth must be given once"),
        ("ring:bandwidth", "bandwidth must be given once as bandwidth=value"),
        ("constant:fast", "--comm seconds"),
        ("constant", "constant needs seconds=.."),
        ("none:seconds=1", r"none has no 'seconds'. \(it takes no numbers"),
        ("server:-1", "must not be negative"),
        ("two-level:replicas=x,inner-bandwidth=1,outer-bandwidth=1", "not a number"),
    ],
)
def test_words_that_are_no_law_are_refused_before_anything_is_measured(text, message):
    with pytest.raises(InputError, match=message):
        CommunicationChoice(law=text)


# --- overlap and checks ---


def test_checks_need_both_of_their_numbers():
    assert MachineChoice().evaluation is None
    found = MachineChoice(every=10, num_examples=500).evaluation
    assert found == Evaluation(every=10, num_examples=500)
    with pytest.raises(InputError, match="go together"):
        MachineChoice(every=10)


def test_the_overlap_is_a_number_from_one_to_infinity():
    assert MachineChoice().overlap_exponent is None
    assert MachineChoice(overlap="inf").overlap_exponent == math.inf
    for text in ("0.9", "nan", "much"):
        with pytest.raises(InputError, match="must be a number from 1, or inf"):
            MachineChoice(overlap=text)


def test_the_measured_times_take_overlap_and_checks_from_the_fit():
    machine = MachineChoice(overlap="3", every=10, num_examples=100)
    sizes, seconds = [1, 8, 64, 512], [0.012, 0.018, 0.074, 0.522]
    fit = machine.fit(sizes, seconds, communication=RING)
    measured = machine.measured(sizes, seconds, fit)
    for count in (1, 4):
        assert measured.seconds_per_step(256 * count, count) == pytest.approx(
            fit.law.seconds_per_step(256 * count, count), rel=0.05
        )
    assert machine.inputs()["evaluate_every"] == 10
