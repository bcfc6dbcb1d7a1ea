"""Words of a line, and their numbers."""

import gzip

import pytest
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from rightbatch.errors import InputError
from rightbatch.experiments.workloads.vocabulary import UNKNOWN, Vocabulary, words

LINES = (
    'The man\'s T-shirt, No. 7 ("blue"), costs 1,000.50!',
    "2-3 dogs... and a/b; 10% of 5.",
    "Zwei [junge] weiße_Männer: {über} 3,5 m.",
    ".5, or ,5 - well-known - 7-",
)


@pytest.mark.parametrize("line", LINES)
def test_words_are_those_of_the_tokeniser_13a_in_lower_case(line):
    assert words(line) == Tokenizer13a()(line.lower()).split()


@pytest.mark.parametrize("line", LINES)
def test_words_joined_by_spaces_are_the_same_words_again(line):
    # So that BLEU, which splits once more, sees the words the model chose.
    assert words(" ".join(words(line))) == words(line)


def test_all_of_multi30k_is_split_as_13a_splits_it(shared_data):
    path = shared_data / "multi30k_de_en" / "val.en.gz"
    if not path.is_file():
        pytest.skip("no Multi30k among the real data")
    tokenise = Tokenizer13a()
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        assert words(line) == tokenise(line.lower()).split()


def test_the_most_frequent_words_get_the_first_numbers_ties_by_the_alphabet():
    counts = {"d": 2, "c": 1, "b": 2, "a": 1}
    vocabulary = Vocabulary(counts, size=7)
    assert vocabulary.numbers(["b", "d", "a", "c"]) == [4, 5, 6, UNKNOWN]
    again = Vocabulary(dict(reversed(counts.items())), size=7)
    assert again.numbers(["b", "d", "a", "c"]) == [4, 5, 6, UNKNOWN]
    assert len(vocabulary) == 7


def test_a_word_written_like_a_special_one_is_unknown():
    assert Vocabulary({"<": 1}, size=5).numbers(["<eos>", "<"]) == [UNKNOWN, 4]


def test_text_ends_at_the_end_mark_and_knows_no_number_past_the_vocabulary():
    vocabulary = Vocabulary({"a": 1}, size=50)
    assert vocabulary.text([4, 40, 4, 3, 4]) == "a <unk> a"


def test_a_vocabulary_without_room_for_a_word_is_refused():
    with pytest.raises(InputError, match="`size` must be above 4, got 4"):
        Vocabulary({"a": 1}, size=4)
