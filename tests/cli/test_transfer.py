"""The command ``transfer``: what it prints, writes, puts back and refuses."""

import json
import subprocess
import sys

import pytest

ADAMW = (
    "--from-batch", 256, "--to-batch", 1024, "--optimizer", "adamw", "--lr", 0.1,
    "--beta1", 0.9, "--beta2", 0.999, "--eps", 1e-8, "--weight-decay", 0.1,
    "--ema-decay", 0.9999, "--warmup-steps", 100, "--total-steps", 10_000,
)  # fmt: skip
SGD = ("--from-batch", 256, "--optimizer", "sgd", "--lr", 0.1)
CHANGE_KEYS = ["setting", "old", "new", "rule", "source", "holds_when"]


def test_every_change_is_listed_with_its_source(rightbatch):
    ended = rightbatch("transfer", *ADAMW, "--rule", "adam_sde", "--json")
    assert ended.code == 0
    document = ended.document
    assert (document["schema"], document["command"]) == (1, "transfer")
    assert all(list(change) == CHANGE_KEYS for change in document["changes"])
    new = {change["setting"]: change["new"] for change in document["changes"]}
    assert new == pytest.approx(
        {
            "lr": 0.2,
            "beta1": 0.6,
            "beta2": 0.996,
            "eps": 5e-9,
            "weight_decay": 0.2,
            "ema_decay": 0.9999**4,
            "warmup_steps": 25,
            "total_steps": 2500,
        }
    )
    assert document["check"] == pytest.approx([0.1, 0.2, 0.4])
    assert document["warnings"] == []
    assert document["schedule"] is None
    assert document["written"] is None


def test_for_a_person_the_conditions_stand_below_the_changes(rightbatch, tmp_path):
    ended = rightbatch("transfer", *ADAMW)
    said = " ".join(ended.out.split())
    assert "From batch size 256 to 1,024" in said
    assert "Malladi et al. (2022). Holds when: noise dominates the gradient" in said
    assert "rule adam_sde: for adamw" in said
    assert "try the learning rates 0.1, 0.2, 0.4" in said
    assert "nothing is written" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_the_contract_s_example_runs(rightbatch):
    ended = rightbatch(
        "transfer", "--from-batch", 256, "--to-batch", 2048, "--optimizer", "adamw",
        "--lr", ".1", "--rule", "square-root", "--noise-scale", 700, "--json",
    )  # fmt: skip
    (change,) = ended.document["changes"]
    assert ended.document["rule"] == change["rule"] == "square_root"
    assert change["new"] == pytest.approx(0.1 * 8**0.5)
    assert "2048 against a noise scale of 700" in ended.document["warnings"][0]


def test_settings_from_a_file_are_written_in_place_and_put_back(rightbatch, tmp_path):
    path, beside = tmp_path / "run.json", tmp_path / "run.before.json"
    first = {"optimizer": "adamw", "lr": 0.001, "beta2": 0.95, "batch_size": 512}
    path.write_text(json.dumps(first))
    for batch in (128, 32):
        ended = rightbatch(
            "transfer", "--settings", path, "--to-batch", batch, "--rule", "half_life",
            "--write", path, "--json",
        )  # fmt: skip
        assert ended.code == 0
        assert ended.document["written"] == str(path)
    now = json.loads(path.read_text())
    assert now["batch_size"] == 32
    assert now["beta2"] == pytest.approx(0.9968, abs=5e-6)
    assert rightbatch("transfer", "--revert", path).code == 0
    assert json.loads(path.read_text())["batch_size"] == 128
    assert beside.exists()
    assert rightbatch("transfer", "--revert", path, "--json").document["settings"]
    assert json.loads(path.read_text()) == first
    assert not beside.exists()
    assert sorted(tmp_path.iterdir()) == [path]
    ended = rightbatch("transfer", "--revert", path)
    assert (ended.code, "nothing to go back to" in ended.last_line) == (2, True)


def test_a_new_file_gets_the_new_settings_and_keeps_the_old_beside(
    rightbatch, tmp_path
):
    rightbatch("transfer", *SGD, "--to-batch", 512, "--write", "new.json")
    new = json.loads((tmp_path / "new.json").read_text())
    assert new == {"optimizer": "sgd", "lr": 0.2, "batch_size": 512}
    assert isinstance(new["batch_size"], int)  # a loader takes no 512.0
    (kept,) = json.loads((tmp_path / "new.before.json").read_text())
    assert kept["settings"] == {"optimizer": "sgd", "lr": 0.1, "batch_size": 256}
    ended = rightbatch("transfer", *SGD, "--to-batch", 512, "--write", "new.json")
    assert (ended.code, "is there already" in ended.last_line) == (2, True)


def test_a_file_changed_since_is_not_reverted(rightbatch, tmp_path):
    rightbatch("transfer", *SGD, "--to-batch", 512, "--write", "new.json")
    (tmp_path / "new.json").write_text('{"optimizer": "sgd", "lr": 0.3}')
    ended = rightbatch("transfer", "--revert", "new.json")
    assert (ended.code, "was changed since" in ended.last_line) == (2, True)


def test_a_schedule_becomes_growth(rightbatch):
    ended = rightbatch(
        "transfer", *SGD, "--total-steps", 10_000, "--schedule", "cosine",
        "--max-batch-size", 2048, "--multiple-of", 64, "--json",
    )  # fmt: skip
    schedule = ended.document["schedule"]
    assert schedule["grow"] == "smith"
    assert schedule["saved_uncapped"] == pytest.approx(0.5)
    assert 0.4 < schedule["saved"] < 0.5
    assert all(stage["batch_size"] % 64 == 0 for stage in schedule["stages"])
    assert max(stage["batch_size"] for stage in schedule["stages"]) == 2048
    assert sum(stage["examples"] for stage in schedule["stages"]) == 2_560_000
    assert ended.document["changes"] == []
    first = schedule["stages"][0]
    assert first["lr"] == pytest.approx(0.1 * first["lr_factor"])


def test_the_growth_starts_where_the_transfer_ends_and_after_the_warmup(rightbatch):
    ended = rightbatch(
        "transfer", *ADAMW, "--schedule", "quarter_cosine", "--json"
    )  # fmt: skip
    schedule = ended.document["schedule"]
    assert (schedule["grow"], schedule["batch_size"]) == ("seesaw", 1024)
    assert schedule["warmup_steps"] == 25
    assert schedule["total_steps"] == pytest.approx(2475)
    assert schedule["saved_unrounded"] == pytest.approx(0.36338, abs=1e-5)
    assert schedule["max_batch_size"] is None
    person = rightbatch("transfer", *ADAMW, "--schedule", "quarter_cosine")
    assert "quarter_cosine as seesaw: 36 % of 2,475 steps saved" in person.out


def test_the_same_batch_size_changes_nothing(rightbatch):
    words = ("transfer", *SGD, "--to-batch", 256)
    assert rightbatch(*words, "--json").document["changes"] == []
    assert "256 to 256: nothing changes" in rightbatch(*words).out


def test_names_to_keep_and_half_lives_come_as_lists(rightbatch):
    ended = rightbatch(
        "transfer", *ADAMW, "--rule", "adam-sde", "--half-life", "beta1,beta2",
        "--keep", "eps,ema-decay", "--json",
    )  # fmt: skip
    new = ended.document["settings"]
    assert (new["eps"], new["ema_decay"]) == (1e-8, 0.9999)
    assert new["beta1"] == pytest.approx(0.9**4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*SGD, "--to-batch", 0), "`to_batch` must be positive, got 0"),
        ((*SGD, "--to-batch", -8), "`to_batch` must be positive, got -8"),
        ((*SGD, "--to-batch", 8, "--rule", "linea"), "did you mean linear"),
        ((*SGD, "--to-batch", 8, "--rule", "adascale"), "needs a noise scale"),
        ((*SGD, "--to-batch", 8, "--momentum", 1), "must be in [0, 1), got 1"),
        ((*SGD, "--to-batch", 8, "--beta1", 0.9), "sgd has no `beta1`"),
        ((*SGD, "--to-batch", 8, "--keep", "momentu"), "did you mean momentum"),
        ((*SGD, "--to-batch", 8, "--noise-scale", -1), "`noise_scale` must be pos"),
        ((*SGD, "--to-batch", "many"), "--to-batch"),
        (SGD, "--to-batch is missing"),
        ((*SGD, "--schedule", "cosine"), "--schedule: needs --total-steps"),
        ((*SGD, "--total-steps", 9, "--schedule", "cos"), "`schedule` cannot be 'cos'"),
        (
            (*SGD, "--total-steps", 9, "--schedule", "linear", "--write", "x.json"),
            "--write: needs --to-batch",
        ),
        (
            (*SGD, "--total-steps", 9, "--schedule", "linear", "--grow", "sesaw"),
            "did you mean seesaw",
        ),
        (("--to-batch", 8, "--optimizer", "sgd", "--lr", 1), "--from-batch is missing"),
        (("--from-batch", 8, "--to-batch", 9, "--lr", 1), "--optimizer is missing"),
        (("--settings", "no.json", "--to-batch", 9), "no.json: cannot be read"),
        (("--settings", "bad.json", "--to-batch", 9), "bad.json: is not JSON"),
        (("--settings", "list.json", "--to-batch", 9), "must be one JSON object"),
        (("--settings", "odd.json", "--to-batch", 9), "did you mean weight_decay"),
        (
            ("--settings", "run.json", "--from-batch", 8, "--to-batch", 9),
            "--from-batch 8 contradicts `batch_size` 4 of run.json",
        ),
        (("--revert", "run.json"), "nothing to go back to"),
        (("--revert", "run.json", "--lr", 0.1), "--lr: has no use beside --revert"),
        (("--revert", "run.json", "--keep", ""), "--keep: has no use beside --revert"),
        ((*SGD, "--to-batch", 8, "--grow", "smith"), "--grow: needs --schedule"),
        (
            (*SGD, "--to-batch", 8, "--max-batch-size", 9),
            "--max-batch-size: needs --schedule",
        ),
        (
            (*SGD, "--to-batch", 8, "--multiple-of", 1),
            "--multiple-of: needs --schedule",
        ),
        (
            (*SGD, "--total-steps", 9, "--schedule", "linear", "--rule", "linear"),
            "--rule: needs --to-batch",
        ),
        (
            (*SGD, "--to-batch", 8, "--keep", "weight-decay"),
            "`keep` names weight_decay, which was not given",
        ),
        (
            (*SGD, "--total-steps", 5, "--warmup-steps", 6, "--schedule", "linear"),
            "the warm-up, 6 steps, takes the whole run of 5",
        ),
    ],
)
def test_bad_input_is_named(rightbatch, tmp_path, words, said):
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    run = {"optimizer": "sgd", "lr": 1, "batch_size": 4}
    (tmp_path / "run.json").write_text(json.dumps(run))
    (tmp_path / "odd.json").write_text(json.dumps({**run, "weightdecay": 1}))
    ended = rightbatch("transfer", *words)
    assert ended.code == 2
    assert said in ended.last_line


def test_a_transfer_loads_neither_torch_nor_scipy():
    words = ["transfer", *map(str, SGD), "--to-batch", "512", "--json", "--quiet"]
    code = (
        "import sys\nfrom rightbatch.cli import main\n"
        f"try:\n    main({words!r})\n"
        "except SystemExit:\n    pass\n"
        "print(*{'torch', 'scipy', 'plotly'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == ""
    assert json.loads(done.stdout)["command"] == "transfer"


def test_an_exchange_for_another_optimizer_is_warned_of(rightbatch):
    words = ["--from-batch", 256, "--optimizer", "adamw", "--lr", 0.001]
    words += ["--total-steps", 1000, "--schedule", "cosine", "--grow", "smith"]
    said = " ".join(rightbatch("transfer", *words, "--json").document["warnings"])
    assert "smith's exchange is SGD's" in said
    assert "growth has no cap" in said
