"""Words of a line of text, and the numbers that a model knows them by."""

import re
from collections.abc import Iterable, Mapping, Sequence

from rightbatch.errors import InputError

PAD, UNKNOWN, BEGIN, END = range(4)
SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>")

# The marks that mteval-v13a sets apart, so that BLEU sees the words we do.
_MARKS = re.compile(r"[!-&(-+/:-@\[-`{-~]|(?<![0-9])[.,]|[.,](?![0-9])|(?<=[0-9])-")


def words(line: str) -> list[str]:
    """Return the words of a line, in lower case, with punctuation set apart.

    Split as the tokeniser 13a of WMT does it: apostrophes and hyphens stay within
    their words, points and commas within numbers.

    Example:
        >>> words("The man's T-shirt, No. 7, costs 1,000.50!")
        ['the', "man's", 't-shirt', ',', 'no', '.', '7', ',', 'costs', '1,000.50', '!']
    """
    return _MARKS.sub(r" \g<0> ", line.lower()).split()


class Vocabulary:
    """The most frequent words, numbered; all others are one word, unknown.

    Args:
        counts: How often each word occurs. Of two words as frequent as each other the
            alphabet's first goes in.
        size: How many numbers there are, the four special ones included.

    Raises:
        InputError: `size` leaves room for no word.

    Example:
        >>> vocabulary = Vocabulary({"c": 1, "b": 1, "a": 2}, size=6)
        >>> vocabulary.numbers(["a", "b", "c"]), vocabulary.text([4, 5, 1])
        ([4, 5, 1], 'a b <unk>')
    """

    def __init__(self, counts: Mapping[str, int], size: int) -> None:
        if size <= len(SPECIAL):
            raise InputError(
                f"Vocabulary: `size` must be above {len(SPECIAL)}, got {size}."
            )
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        self._words = (*SPECIAL, *ranked[: size - len(SPECIAL)])
        self._numbers = {
            word: number
            for number, word in enumerate(self._words)
            if number >= len(SPECIAL)
        }

    def __len__(self) -> int:
        return len(self._words)

    def numbers(self, sentence: Sequence[str]) -> list[int]:
        """Return the numbers of a sentence's words."""
        return [self._numbers.get(word, UNKNOWN) for word in sentence]

    def text(self, numbers: Iterable[int]) -> str:
        """Return the words behind numbers, up to the end mark, joined by spaces."""
        found: list[str] = []
        for number in numbers:
            if number == END:
                break
            # A model may have more numbers than the text it was given has words.
            found.append(self._words[number if number < len(self) else UNKNOWN])
        return " ".join(found)
