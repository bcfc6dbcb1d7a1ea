"""``cluster FILE.toml``: worked examples, results, and every slip a file can hold."""

import json
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "clusters"
JOB = """
[job]
min_steps = 1000
min_examples = 7e5
seconds_per_example = "1 ms"
saturation_batch_size = 20
communication = { kind = "constant", seconds = "20 ms" }
"""
BUY = "budget = 50_000\n[replicas]\nprice = 1000\n[bandwidth]\nprice = 2000\n"


@pytest.fixture
def cluster(rightbatch, tmp_path):
    """Return a function that runs the command on the text of a file."""

    def run(text: str, *words: object):
        (tmp_path / "c.toml").write_text(text, encoding="utf-8")
        return rightbatch("cluster", "c.toml", *words)

    return run


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda p: p.stem)
def test_every_worked_example_has_an_answer(rightbatch, path):
    ended = rightbatch("cluster", path, "--json")
    assert ended.code == 0, ended.err
    found = ended.document
    assert found["command"] == "cluster"
    money = [mix["money"] for mix in found["pareto"]]
    seconds = [mix["seconds"] for mix in found["pareto"]]
    assert np.all(np.diff(money) > 0)
    assert np.all(np.diff(seconds) < 0)
    best, inputs = found["best"], found["inputs"]
    if inputs["budget"] is not None:
        assert best["money"] <= inputs["budget"] * (1 + 1e-9)
    if inputs["deadline"] is not None:
        assert best["seconds"] <= inputs["deadline"] * (1 + 1e-9)
    assert len(found["marginal"]["components"]) == len(inputs["components"])
    names = [each["what"] for each in found["marginal"]["changes"]]
    assert names == ["one more replica", "twice the bandwidth"]
    used = sum(share["num_replicas"] for share in best["jobs"])
    assert used + best["idle_replicas"] == best["num_replicas"]


def test_there_are_worked_examples():
    assert len(list(EXAMPLES.glob("*.toml"))) >= 4


def test_two_components_for_a_budget_print_the_mix_and_the_sentence(cluster):
    ended = cluster(BUY + JOB)
    assert ended.code == 0
    assert "Buy 38 replicas, bandwidth 6 and train at 760: 44.8 s" in ended.out
    assert "The best mix" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 100


def test_a_budget_by_the_hour_is_for_the_bill(cluster):
    text = BUY.replace("50_000", '2.0\nprices = "per hour"')
    found = cluster(text.replace("000\n", "\n") + JOB, "--json").document
    best = found["best"]
    assert best["money"] == pytest.approx(best["price"] * best["seconds"] / 3600)
    assert best["money"] <= 2.0 * (1 + 1e-9)


def test_jobs_share_a_cluster_that_is_there(cluster):
    jobs = JOB.replace("[job]", "[[jobs]]\nname = 'a'")
    jobs += JOB.replace("[job]", "[[jobs]]\nname = 'b'").replace("7e5", "7e4")
    ended = cluster("num_replicas = 16\n" + jobs, "--json")
    shares = ended.document["best"]["jobs"]
    assert [share["name"] for share in shares] == ["a", "b"]
    assert shares[0]["num_replicas"] > shares[1]["num_replicas"]
    assert ended.document["sentence"].startswith("Use 16 replicas, shared as a ")


def test_laws_from_tables_have_intervals_of_the_time(rightbatch):
    found = rightbatch("cluster", EXAMPLES / "from-tables.toml", "--json").document
    interval = found["best"]["seconds_interval"]
    assert interval["low"] < found["best"]["seconds"] < interval["high"]
    assert interval["level"] == 0.9
    (job,) = found["jobs"]
    assert job["status"] == "ok"
    assert job["critical_batch_size"]["low"] < job["critical_batch_size"]["value"]


def test_laws_given_as_numbers_have_none(cluster):
    found = cluster(BUY + JOB, "--json").document
    assert found["best"]["seconds_interval"] is None
    assert found["jobs"][0]["status"] == "given"


def from_runs(folder, rows):
    (folder / "runs.csv").write_text("\n".join(["batch_size,steps", *rows]))
    return BUY + JOB.replace(
        "min_steps = 1000\nmin_examples = 7e5", 'runs = "runs.csv"'
    )


# So many steps that S_min is 200, and so scattered that it cannot be told from 0.
SCATTERED = [
    f"{b},{(200 + 7e5 / b) * wobble:.1f}"
    for b in (16, 32, 64, 128)
    for wobble in (0.8, 1.0, 1.2)
]
# Steps fall faster than examples allow: S_min is below 0.
FALLING = [
    f"{b},{(7e5 / b - 1000) * wobble:.1f}"
    for b in (16, 32, 64, 128)
    for wobble in (0.95, 1.0, 1.05)
]


def test_where_s_min_is_not_above_zero_the_largest_batch_run_is_a_lower_bound(
    cluster, tmp_path
):
    ended = cluster(from_runs(tmp_path, FALLING), "--json")
    assert ended.code == 0, ended.err
    found = ended.document
    (job,) = found["jobs"]
    assert job["status"] == "unidentifiable"
    assert job["min_steps"]["value"] <= 0
    assert job["max_batch_size"] == 128
    assert found["best"]["jobs"][0]["batch_size"] <= 128
    assert found["best"]["seconds_interval"]["low"] is None
    assert found["best"]["seconds_interval"]["high"] is not None
    assert any("unidentifiable" in said for said in found["warnings"])
    assert any("a lower bound of the best" in said for said in found["warnings"])
    assert "upper bound" in found["sentence"]


def test_an_unidentifiable_law_with_s_min_above_zero_is_planned_with_as_it_is(
    cluster, tmp_path
):
    found = cluster(from_runs(tmp_path, SCATTERED), "--json").document
    (job,) = found["jobs"]
    assert job["status"] == "unidentifiable"
    assert job["min_steps"]["value"] > 0
    assert job["max_batch_size"] is None
    assert found["best"]["jobs"][0]["batch_size"] > 128
    assert found["best"]["seconds_interval"]["low"] is not None
    assert any("unidentifiable" in said for said in found["warnings"])
    assert any("lies outside 16 to 128" in said for said in found["warnings"])
    assert "bound" not in found["sentence"]


@pytest.mark.parametrize("rows", [SCATTERED, FALLING], ids=["scattered", "falling"])
def test_plan_and_cluster_choose_the_same_batch_from_the_same_tables(
    rightbatch, cluster, tmp_path, rows
):
    times = [
        f"{b},{p},{0.001 * max(b / p, 4) + (p > 1) * 0.02:.5f}"
        for p in (1, 2, 4, 8)
        for b in (16, 64, 256, 1024)
    ]
    (tmp_path / "times.csv").write_text(
        "\n".join(["batch_size,num_replicas,seconds", *times])
    )
    from_runs(tmp_path, rows)
    text = "num_replicas = 8\n[job]\nruns = 'runs.csv'\ntimes = 'times.csv'\n"
    (share,) = cluster(text, "--json").document["best"]["jobs"]
    words = ("--runs", "runs.csv", "--times", "times.csv", "--replicas", "8", "--json")
    planned = rightbatch("plan", *words).document["optimal"]
    (entry,) = [each for each in planned if each["num_replicas"] == 8]
    assert share["num_replicas"] == 8
    assert share["batch_size"] == entry["batch_size"]
    assert share["seconds"] == pytest.approx(entry["seconds"])


def test_checks_between_steps_count_in_the_interval_too(cluster, tmp_path):
    rows = [
        f"{b},{p},{(0.01 + 0.001 * b / p) * wobble:.5f}"
        for p in (1, 2)
        for b in (16, 64, 256, 1024)
        for wobble in (0.8, 1.2)
    ]
    (tmp_path / "times.csv").write_text(
        "\n".join(["batch_size,num_replicas,seconds", *rows])
    )
    text = "num_replicas = 1\n[job]\nmin_steps = 1000\nmin_examples = 7e5\n"
    text += "times = 'times.csv'\ncandidates = [128]\n"
    # A check costs as many seconds a step whatever the step takes: 10 s, known exactly.
    check = "every = 1, num_examples = 1000, seconds_per_example = '10 ms'"
    plain, checked = (
        cluster(each, "--json").document["best"]
        for each in (text, f"{text}evaluation = {{ {check} }}\n")
    )
    assert checked["seconds"] > 10 * plain["seconds"]

    def width(best):
        interval = best["seconds_interval"]
        return (interval["high"] - interval["low"]) / best["seconds"]

    assert 0 < width(checked) < 0.1 * width(plain)


def test_a_currency_may_have_any_name(cluster):
    ended = cluster(f"currency = 'replicas'\n{BUY}{JOB}")
    assert "Buy 38 replicas, bandwidth 6 and train at 760" in ended.out
    assert "for 50,000 replicas." in ended.out


def test_two_workloads_in_one_table_need_a_name(cluster, tmp_path):
    text = from_runs(tmp_path, [])
    rows = [f"{w},{b},{1000 + 7e5 / b}" for w in "ab" for b in (16, 64, 256, 1024)]
    (tmp_path / "runs.csv").write_text("\n".join(["workload,batch_size,steps", *rows]))
    ended = cluster(text)
    assert ended.code == 2
    assert "holds 2 workloads (a, b)" in ended.err
    assert 'workload = "a"' in ended.err
    named = text.replace('runs = "runs.csv"', 'runs = "runs.csv"\nworkload = "b"')
    assert cluster(named).code == 0
    wrong = text.replace('runs = "runs.csv"', 'runs = "runs.csv"\nworkload = "c"')
    assert cluster(wrong).code == 2


REFUSED = {
    "unknown key": (BUY + JOB + "min_step = 3\n", "did you mean min_steps"),
    "unknown table": (BUY + "[memry]\nprice = 1\n" + JOB, "did you mean memory"),
    "unknown key of a component": (
        BUY.replace("price = 1000", "price = 1000\nhihg = 3") + JOB,
        "did you mean high",
    ),
    "unknown key of a price": (
        BUY.replace("price = 1000", "price = { per_unti = 1000 }") + JOB,
        "did you mean per_unit",
    ),
    "negative price": (BUY.replace("1000", "-1") + JOB, "`price` must be positive"),
    "price of nothing": (BUY.replace("1000", "0") + JOB, "`price` must be positive"),
    "falling prices": (
        BUY.replace("1000", "{ amounts = [1, 2], prices = [2, 1] }") + JOB,
        "must not fall",
    ),
    "no price": (BUY.replace("price = 1000", "high = 3") + JOB, "needs `price`"),
    "time of nothing": (BUY + JOB.replace("1 ms", "0 ms"), "must be positive, got 0"),
    "negative time": (BUY + JOB.replace("1 ms", "-1 ms"), "must not be negative"),
    "a size for a time": (BUY + JOB.replace("1 ms", "1 GB"), "must be a time, got"),
    "unit unknown": (BUY + JOB.replace("1 ms", "1 mss"), "unknown unit, 'mss'"),
    "text for a number": (BUY + JOB.replace("= 1000", "= 'many'"), "`min_steps` must"),
    "no examples": (BUY + JOB.replace("min_examples = 7e5", ""), "`min_examples`"),
    "negative examples": (BUY + JOB.replace("7e5", "-1"), "`min_examples` must be"),
    "no job": (BUY, "give one table [job], or several [[jobs]]"),
    "a job and jobs": (BUY + JOB + "[[jobs]]\nmin_steps = 1\n", "give one table [job]"),
    "nothing to buy": (JOB, "names nothing to buy"),
    "no budget": (BUY.replace("budget = 50_000", "") + JOB, "`budget` or a `deadline`"),
    "budget of nothing": (BUY.replace("50_000", "0") + JOB, "`budget` must be"),
    "budget of words": (BUY.replace("50_000", "'much'") + JOB, "`budget` must be"),
    "deadline now": ('deadline = "0 s"\n' + BUY + JOB, "`deadline` must be positive"),
    "prices of a kind": ('prices = "per houre"\n' + BUY + JOB, "did you mean per hour"),
    "aim of a kind": ('aim = "lates"\n' + BUY + JOB, "did you mean latest"),
    "replicas twice": ("num_replicas = 4\n" + BUY + JOB, "not both"),
    "communication unknown": (BUY + JOB.replace("constant", "constnt"), "constant"),
    "communication field": (BUY + JOB.replace("seconds =", "secnds ="), "secnds"),
    "law twice": (BUY + JOB + "runs = 'r.csv'\n", "cannot stand beside `runs`"),
    "workload without runs": (BUY + JOB + "workload = 'a'\n", "needs `runs`"),
    "no such table": (
        BUY + JOB.replace("min_steps = 1000\nmin_examples = 7e5", "runs = 'r.csv'"),
        "r.csv: cannot be read",
    ),
    "high below low": (
        BUY.replace("price = 1000", "price = 1000\nlow = 9\nhigh = 3") + JOB,
        "`high` must be >= `low`",
    ),
    "half a replica": (
        BUY.replace("price = 1000", "price = 1000\nlow = 1.5") + JOB,
        "whole number",
    ),
    "no TOML": ("budget = = 3", "is not TOML"),
    "ever larger batches": (BUY + JOB.replace("= 1000", "= -5"), "larger batches"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_slip_in_the_file_is_named(cluster, text, message):
    ended = cluster(text)
    assert ended.code == 2, ended.out + ended.err
    assert message in ended.err
    assert "c.toml" in ended.err or "r.csv" in ended.err
    assert "bug" not in ended.err


def test_a_file_that_is_not_there_is_named(rightbatch):
    ended = rightbatch("cluster", "none.toml")
    assert ended.code == 2
    assert "none.toml: cannot be read" in ended.err


def test_a_budget_too_small_ends_with_3_and_the_smallest_that_works(cluster):
    ended = cluster(BUY.replace("50_000", "2_999") + JOB, "--json")
    assert ended.code == 3
    assert "smallest budget that works is 3,000" in ended.document["error"]["message"]
    assert ended.document["inputs"]["budget"] == 2999


def test_a_deadline_out_of_reach_ends_with_3_and_the_least_time(cluster):
    text = BUY.replace("budget = 50_000", 'deadline = "1 s"')
    text = text.replace("price = 1000", "price = 1000\nhigh = 64")
    ended = cluster(text.replace("price = 2000", "price = 2000\nhigh = 8") + JOB)
    assert ended.code == 3
    assert "least time that can be reached is 34.8" in ended.err
    assert "at a price of 80,000" in ended.err


def test_memory_is_given_in_bytes(cluster):
    text = BUY + (
        '[memory]\nper_example = "500 MB"\nreserved = "4 GB"\nlow = "16 GB"\n'
        'high = "80 GB"\nprice = { per_unit = 10, included = 16 }\n'
    )
    found = cluster(text + JOB, "--json").document
    assert 16 <= found["best"]["amounts"]["memory"] <= 80


def test_memory_without_a_size_per_example_is_in_examples(cluster):
    text = BUY + "[memory]\nprice = 10\nlow = 4\nhigh = 64\n"
    assert cluster(text + JOB).code == 0
    ended = cluster(text.replace("low = 4", "reserved = 2") + JOB)
    assert "`reserved` needs `per_example`" in ended.err


def test_a_report_is_written(cluster, tmp_path):
    ended = cluster(BUY + JOB, "--report", "r.html", "--quiet")
    assert ended.code == 0, ended.err
    assert "<html" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_document_is_plain_json(cluster):
    ended = cluster(BUY + JOB, "--json")
    assert list(json.loads(ended.out))[:3] == ["schema", "command", "inputs"]
    assert {"best", "pareto", "marginal", "jobs", "warnings"} <= set(ended.document)
