import pytest

SWEEP = ("sweep", "digits-mlp", "--batch-sizes", "256", "--seeds", "1", "--json")
QUICK = ("--processes", "1", "--target", "0.5")


def test_a_sweep_with_another_optimizer_has_a_name_and_a_store_of_its_own(
    rightbatch, tmp_path
) -> None:
    words = (*SWEEP, *QUICK, "--optimizer", "adam:beta1=.5", "--ema", ".5")
    ended = rightbatch(*words, "--lr", "0.03")
    assert ended.code == 0
    inputs = ended.document["inputs"]
    assert inputs["workload"] == "digits-mlp+adam,beta1=0.5+ema0.5"
    assert inputs["optimizer"] == "adam:beta1=.5"
    assert inputs["ema_decay"] == 0.5
    assert ended.document["runs"][0]["status"] == "reached"
    [store] = (tmp_path / "runs").glob("*.sqlite")
    assert store.name == "digits-mlp-adam-beta1-0.5-ema0.5.sqlite"


def test_a_store_of_the_workload_s_own_optimizer_is_not_taken(rightbatch) -> None:
    words = (*SWEEP, *QUICK, "--lr", "0.5", "--store", "own.sqlite")
    assert rightbatch(*words).code == 0
    ended = rightbatch(*words, "--optimizer", "momentum")
    assert ended.code == 2
    assert "belongs to workload 'digits-mlp'" in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--optimizer", "adm"), "did you mean adam"),
        (("--optimizer", "adam:beta1=x"), "`beta1` of adam must be a number"),
        (("--ema", "1"), "sweep: `--ema` must be between 0 and 1, got 1"),
    ],
)
def test_a_wrong_optimizer_or_decay_is_refused_before_a_store_is_made(
    rightbatch, tmp_path, words: tuple[str, ...], said: str
) -> None:
    ended = rightbatch(*SWEEP, *words)
    assert ended.code == 2
    assert said in ended.err
    assert not (tmp_path / "runs").exists()
