"""Tiny generated texts in the formats of the real ones, for trying things out."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np

SUBJECTS = {
    "Ein Mann": "A man",
    "Eine Frau": "A woman",
    "Zwei Kinder": "Two children",
    "Der Hund": "The dog",
    "Viele Leute": "Many people",
}
PREDICATES = {
    "sieht": "sees",
    "trägt": "carries",
    "kauft": "buys",
    "sucht": "looks for",
}
OBJECTS = {
    "einen Ball": "a ball",
    "ein Buch": "a book",
    "drei Äpfel": "three apples",
    "die Zeitung": "the newspaper",
}
PLACES = {
    "im Garten": "in the garden",
    "auf der Straße": "on the street",
    "am Fluss": "by the river",
    "": "",
}
PARTS = (SUBJECTS, PREDICATES, OBJECTS, PLACES)
SPEAKERS = ("FIRST KEEPER", "SECOND KEEPER", "MILLER", "NURSE")


def write_multi30k(folder: Path) -> None:
    """Write Multi30k's four files: 200 pairs to train on and 40 for validation."""
    _write_pairs(folder, "train", 200, seed=0, packed=True)
    _write_pairs(folder, "val", 40, seed=1, packed=True)


def write_europarl(folder: Path) -> None:
    """Write files as Europarl's and newstest2013's: 200 pairs and 40."""
    _write_pairs(folder, "europarl-v7.de-en", 200, seed=0)
    _write_pairs(folder, "newstest2013", 40, seed=1)


def write_lm_text(folder: Path) -> None:
    """Write a text of some 30,000 characters as tinyshakespeare.txt.gz."""
    rng = np.random.RandomState(0)
    speeches: list[str] = []
    for _ in range(250):
        lines = [_sentence(rng)[1] for _ in range(rng.randint(1, 5))]
        speeches.append(f"{SPEAKERS[rng.randint(len(SPEAKERS))]}:\n" + "\n".join(lines))
    _write(folder / "tinyshakespeare.txt.gz", "\n\n".join(speeches) + "\n", packed=True)


# By the folder that a data set's files are looked for in.
TEXT_STAND_INS: dict[str, Callable[[Path], None]] = {
    "multi30k_de_en": write_multi30k,
    "europarl": write_europarl,
    "lm_text": write_lm_text,
}


def _write_pairs(
    folder: Path, name: str, count: int, *, seed: int, packed: bool = False
) -> None:
    rng = np.random.RandomState(seed)
    pairs = [_sentence(rng) for _ in range(count)]
    for side, language in enumerate(("de", "en")):
        text = "".join(pair[side] + "\n" for pair in pairs)
        suffix = ".gz" if packed else ""
        _write(folder / f"{name}.{language}{suffix}", text, packed=packed)


def _sentence(rng: np.random.RandomState) -> tuple[str, str]:
    chosen = [list(part.items())[rng.randint(len(part))] for part in PARTS]
    german, english = (
        " ".join(pair[side] for pair in chosen if pair[side]) + "." for side in (0, 1)
    )
    return german, english


def _write(path: Path, text: str, *, packed: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode()
    # No time stamp: the same bytes each time.
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
