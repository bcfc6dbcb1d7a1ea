"""Parallel text: pairs stay pairs, and what would shift them is refused."""

import gzip
import tarfile

import pytest

from rightbatch.errors import InputError
from rightbatch.experiments.data.parallel_text import (
    SentencePair,
    read_parallel,
    read_parallel_archive,
)


def write(folder, source, target):
    paths = folder / "a.de", folder / "a.en.gz"
    paths[0].write_bytes(source.encode())
    paths[1].write_bytes(gzip.compress(target.encode()))
    return paths


def test_line_i_goes_with_line_i(tmp_path):
    pairs = read_parallel(*write(tmp_path, "ja\nvielleicht", "yes\nmaybe\n"))
    assert pairs == (SentencePair("ja", "yes"), SentencePair("vielleicht", "maybe"))


def test_files_of_different_lengths_are_refused_with_both_counts(tmp_path):
    paths = write(tmp_path, "ja\nnein\nnie\n", "yes\nno\n")
    with pytest.raises(InputError, match=r"a\.de has 3 lines and .*a\.en\.gz 2"):
        read_parallel(*paths)


def test_a_pair_with_an_empty_side_goes_as_a_whole_and_is_counted(tmp_path):
    paths = write(tmp_path, "eins\n\ndrei\nvier\n", "one\ntwo\n \nfour\n")
    with pytest.warns(UserWarning, match=r"a\.en\.gz: 2 of 4 pairs have an empty"):
        pairs = read_parallel(*paths)
    assert pairs == (SentencePair("eins", "one"), SentencePair("vier", "four"))


def test_files_without_one_whole_pair_are_refused(tmp_path):
    with pytest.raises(InputError, match="every pair has an empty side"):
        read_parallel(*write(tmp_path, "\nzwei\n", "one\n\n"))


def test_pairs_are_read_out_of_an_archive(tmp_path):
    files = write(tmp_path, "ja\nnein\n", "yes\nno\n")
    archive = tmp_path / "de-en.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(files[0], "corpus/a.de")
        tar.add(files[0], "corpus/a.en")
        tar.add(files[0], "corpus/other")
    pairs = read_parallel_archive(archive, "a.de", "a.en")
    assert pairs == (SentencePair("ja", "ja"), SentencePair("nein", "nein"))
    with pytest.raises(InputError, match=r"de-en\.tgz: holds no file a\.fr"):
        read_parallel_archive(archive, "a.de", "a.fr")
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(InputError, match=r"de-en\.tgz: cut short"):
        read_parallel_archive(archive, "a.de", "a.en")
