"""BLEU against its formula, and what is refused."""

import math
import sys

import pytest

from rightbatch.errors import InputError
from rightbatch.experiments.workloads.bleu import corpus_bleu


def test_bleu_is_the_published_formula():
    # Papineni et al. (2002): 7 of 8 words, 5 of 7 pairs, 3 of 6 triples, 1 of 5
    # quadruples are the reference's, which is a word longer.
    translation = "a man in a hat sits on benches"
    reference = "A man in a hat sits down on chairs"
    matches = [(7, 8), (5, 7), (4, 6), (3, 5)]
    precision = math.exp(sum(math.log(m / n) for m, n in matches) / 4)
    expected = 100 * math.exp(1 - 9 / 8) * precision
    assert corpus_bleu([translation], [reference]) == pytest.approx(expected)


def test_case_and_spaces_before_punctuation_do_not_matter():
    assert corpus_bleu(["a dog , a cat and more ."], ["A dog, a Cat and more."]) == (
        pytest.approx(100)
    )


def test_numbers_that_do_not_match_are_refused():
    with pytest.raises(InputError, match="at least one, got 1 and 2"):
        corpus_bleu(["a"], ["a", "b"])
    with pytest.raises(InputError, match="at least one, got 0 and 0"):
        corpus_bleu([], [])


def test_a_missing_sacrebleu_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(InputError, match=r"pip install 'rightbatch\[data\]'"):
        corpus_bleu(["a"], ["a"])
