"""The translation workloads: batches of target words, losses, BLEU, bad input."""

import pytest
import torch
from torch.nn import functional

from rightbatch.engine import make_update
from rightbatch.errors import DataMissingError, InputError
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.data.text_stand_in import TEXT_STAND_INS
from rightbatch.experiments.evaluation import Evaluation
from rightbatch.experiments.run import run_to_target
from rightbatch.experiments.workloads import translation
from rightbatch.experiments.workloads.gru_attention import GruAttention
from rightbatch.experiments.workloads.translation import (
    collate,
    europarl_gru,
    multi30k_gru,
    word_losses,
)
from rightbatch.experiments.workloads.vocabulary import END
from rightbatch.sampler import ExampleStream
from rightbatch.timing import measure_step_times
from rightbatch.workload import (
    STAND_IN_FILE,
    data_status,
    load_workload,
    num_parameters,
)


@pytest.fixture
def tiny(tmp_path):
    for name in ("multi30k_de_en", "europarl"):
        (tmp_path / name).mkdir()
        TEXT_STAND_INS[name](tmp_path / name)
    return tmp_path


def expected_parameters(v, h):
    embeddings = 2 * v * h
    encoder = 2 * (2 * 3 * h * h + 2 * 3 * h)
    gru_1 = 2 * 3 * h * h + 2 * 3 * h
    gru_2 = 3 * h * 2 * h + 3 * h * h + 2 * 3 * h
    attention = (2 * h * h + h) + h * h + h
    first_state = 2 * h * h + h
    deep_output = 4 * h * h + h + h * v + v
    return embeddings + encoder + gru_1 + gru_2 + attention + first_state + deep_output


@pytest.mark.parametrize(
    ("make", "sizes"), [(multi30k_gru, (4_000, 128)), (europarl_gru, (30_000, 512))]
)
def test_the_counts_follow_from_the_sizes_and_need_no_data(make, sizes, tmp_path):
    assert num_parameters(make(tmp_path)) == expected_parameters(*sizes)


def test_the_published_learning_rates_and_plain_sgd_are_used():
    workload = europarl_gru()
    assert workload.lrs == (0.1, 0.2, 0.5, 1.0)
    optimizer = workload.optimizer([torch.nn.Parameter(torch.ones(1))], 0.2)
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.defaults["momentum"] == optimizer.defaults["weight_decay"] == 0


def test_a_batch_is_the_fewest_sentences_whose_target_words_reach_its_size(tiny):
    workload = multi30k_gru(tiny)
    stream = ExampleStream(
        workload.train, 0, collate=list, example_count=workload.example_count
    )
    for size in (1, 30, 100):
        counts = [len(target) for _, target in stream.next(size)]
        assert sum(counts) >= size > sum(counts[:-1])


def test_the_end_mark_counts_as_a_word_and_is_learned(tiny):
    source, target = multi30k_gru(tiny).train[0]
    assert target[-1] == END
    assert translation.target_words((source, target)) == len(target)


def test_the_losses_of_a_batch_are_those_of_its_sentences_alone():
    torch.manual_seed(0)
    model = GruAttention(vocabulary_size=20, hidden_size=8)
    generator = torch.Generator().manual_seed(1)

    def sentence():
        length = int(torch.randint(1, 12, (1,), generator=generator))
        return torch.randint(4, 20, (length,), generator=generator)

    # More than one group, so that each is padded on its own.
    items = [(sentence(), sentence()) for _ in range(66)]
    batch = collate(items)
    assert len(batch[0]) == 2
    together = word_losses(model, batch)
    alone = torch.cat([word_losses(model, collate([item])) for item in items])
    assert len(together) == sum(len(target) for _, target in items)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_an_update_goes_down_the_gradient_of_the_mean_over_target_words(tiny):
    workload = multi30k_gru(tiny)
    items = [workload.train[row] for row in range(3)]
    model, reference = workload.model(0), workload.model(0)
    update = make_update(model, workload.optimizer, workload.loss, 0.5)
    loss = update(workload.collate(items))
    total, count = 0, 0
    for item in items:
        source, lengths, previous, target, sizes = workload.collate([item])[0][0]
        logits = reference(source, lengths, previous, sizes)
        total = total + functional.cross_entropy(logits, target, reduction="sum")
        count += len(target)
    (total / count).backward()
    assert float(loss) == pytest.approx(float(total.detach()) / count, rel=1e-5)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        step = theirs.detach() - 0.5 * theirs.grad
        torch.testing.assert_close(ours.detach(), step, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_a_model_learns_to_translate_and_reaches_its_bleu(tiny):
    workload = multi30k_gru(tiny)
    small = translation.seeded(lambda: GruAttention(vocabulary_size=40, hidden_size=16))
    object.__setattr__(workload, "model", small)
    run = run_to_target(
        workload,
        batch_size=60,
        lr=2.0,
        seed=0,
        targets=[30],
        max_steps=250,
        crossing=Crossing(definition="first", direction="max", every=25),
    )
    assert run.status == "reached"
    assert run.steps() % 25 == 0
    assert run.trace[0][1] < 10


def test_untrained_losses_are_near_the_logarithm_of_the_vocabulary(tiny):
    workload = multi30k_gru(tiny)
    evaluation = Evaluation(workload)
    losses = evaluation.mean_loss(workload.model(0))
    # ln 4000 = 8.29.
    assert 8.1 < losses < 8.5
    assert 0 <= evaluation.value(workload.model(0)) < 5


def test_both_orders_of_reading_europarl_give_the_same_pairs(tiny, tmp_path):
    import tarfile

    packed = tmp_path / "packed" / "europarl"
    packed.mkdir(parents=True)
    files = tiny / "europarl"
    with tarfile.open(packed / "de-en.tgz", "w:gz") as tar:
        for name in translation.EUROPARL_FILES[:2]:
            tar.add(files / name, name)
    for name in translation.EUROPARL_FILES[2:]:
        (packed / name).write_bytes((files / name).read_bytes())
    ours, theirs = europarl_gru(tiny), europarl_gru(tmp_path / "packed")
    assert data_status(theirs) == "found"
    assert len(ours.train) == len(theirs.train) == 200
    for one, same in zip(ours.train, theirs.train, strict=True):
        assert [side.tolist() for side in one] == [side.tolist() for side in same]


def test_missing_files_are_named_when_the_data_is_first_used(tmp_path, monkeypatch):
    monkeypatch.delenv("RIGHTBATCH_DATA", raising=False)
    workload = europarl_gru(tmp_path)
    if data_status(workload) == "found":
        pytest.skip("the platform's data folder holds Europarl")
    with pytest.raises(DataMissingError, match=r"newstest2013\.de.*or de-en\.tgz"):
        len(workload.train)


def test_sentences_above_fifty_words_are_not_trained_on_but_translated(tiny):
    folder = tiny / "multi30k_de_en"
    long = " ".join(["wort"] * 51)
    for name in ("train", "val"):
        (folder / f"{name}.de.gz").write_bytes(f"{long}\nja\n".encode())
        (folder / f"{name}.en.gz").write_bytes(b"much\nyes\n")
    workload = multi30k_gru(tiny)
    assert len(workload.train) == 1
    assert sorted(len(source) for source, _ in workload.evaluate_on) == [1, 51]
    (folder / "train.de.gz").write_bytes(f"{long}\n{long}\n".encode())
    with pytest.raises(InputError, match="all 2 pairs have more than 50 words"):
        len(multi30k_gru(tiny).train)


def test_a_stand_in_is_marked_and_timed(tiny):
    (tiny / "multi30k_de_en" / STAND_IN_FILE).write_text("generated")
    place = "rightbatch.experiments.workloads.translation:multi30k_gru"
    workload = load_workload(place, tiny)
    assert workload.name == "multi30k-gru (stand-in)"
    times = measure_step_times(workload, [20, 200], budget_seconds=0.1)
    assert times.batch_sizes == (20, 200)


@pytest.mark.slow
def test_real_multi30k_is_read(shared_data):
    if not (shared_data / "multi30k_de_en").is_dir():
        pytest.skip("no Multi30k among the real data")
    workload = multi30k_gru(shared_data)
    assert len(workload.train) == 29_000
    assert len(workload.evaluate_on) == 300
    counts = [workload.example_count(item) for item in workload.train]
    # wc -w says 345,020 before punctuation is set apart; an end mark each.
    assert 345_020 + 29_000 < sum(counts) == 406_088
