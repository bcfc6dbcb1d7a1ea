"""Sums noted beside files, and sizes of published ones."""

import hashlib

import pytest

from rightbatch.errors import InputError
from rightbatch.experiments.data.archives import members
from rightbatch.experiments.data.checksums import (
    SUMS_FILE,
    check_sum,
    difference,
    note_sum,
    noted_sums,
)
from rightbatch.experiments.data.idx import read_idx
from rightbatch.experiments.data.npz import read_npz
from rightbatch.experiments.data.published import PUBLISHED
from rightbatch.workload import STAND_IN_FILE


def test_a_file_is_held_to_the_sum_noted_beside_it_however_md5sum_wrote_it(tmp_path):
    path = tmp_path / "a file"
    path.write_bytes(b"abc")
    check_sum(path)
    good = hashlib.md5(b"abc").hexdigest()
    for line in (
        f"{good}  a file\n",
        f"{good.upper()} *a file\n",
        f"{good}  ./a file\n",
        f"\n# sums\n{good}  other\n",
    ):
        (tmp_path / SUMS_FILE).write_text(line)
        check_sum(path)
    (tmp_path / SUMS_FILE).write_text(f"{'0' * 32}  a file\n")
    with pytest.raises(InputError, match=f"its MD5 sum is {good}, but MD5SUMS beside"):
        check_sum(path)


def test_noting_a_sum_replaces_the_older_one_and_keeps_others(tmp_path):
    note_sum(tmp_path / "b", "1" * 32)
    note_sum(tmp_path / "a", "2" * 32)
    note_sum(tmp_path / "b", "3" * 32)
    assert noted_sums(tmp_path) == {"a": "2" * 32, "b": "3" * 32}


def test_a_file_of_sums_that_is_no_text_is_refused(tmp_path):
    (tmp_path / SUMS_FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"MD5SUMS: cannot be read: 'utf-8' codec"):
        noted_sums(tmp_path)


@pytest.mark.parametrize(
    "read",
    [
        read_idx,
        lambda path: read_npz(path, side=1, num_classes=1),
        lambda path: list(members(path, lambda _: True)),
        lambda path: list(members(path.parent, lambda name: name.name == "a")),
    ],
    ids=["idx", "npz", "archive", "folder"],
)
def test_every_reader_refuses_a_file_whose_noted_sum_is_another(tmp_path, read):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    note_sum(path, "0" * 32)
    with pytest.raises(
        InputError, match="a: its MD5 sum is 900150983cd24fb0d6963f7d28"
    ):
        read(path)


def test_a_file_of_another_size_than_the_published_one_is_told(tmp_path):
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(bytes(29_515))
    assert "has 29,515 bytes, the published file 28,881" in difference("mnist", path)
    assert difference("fashion-mnist", path) == ""
    assert difference("no-such-set", path) == ""
    (tmp_path / STAND_IN_FILE).touch()
    assert difference("fashion-mnist", path) == "generated"


def test_what_is_known_of_published_files_is_well_formed():
    for files in PUBLISHED.values():
        for file in files:
            assert len(bytes.fromhex(file.md5)) == 16
            assert file.size > 0
            assert all(url.endswith("/" + file.name) for url in file.urls)


def test_the_real_files_are_the_published_ones(shared_data):
    folder = shared_data / "mnist"
    if not folder.is_dir():
        pytest.skip("no MNIST among the real data")
    for file in PUBLISHED["mnist"]:
        content = (folder / file.name).read_bytes()
        assert (len(content), hashlib.md5(content).hexdigest()) == (file.size, file.md5)


@pytest.mark.parametrize(
    "line", [f"MD5 (a) = {'0' * 32}", "0" * 32, f"{'0' * 31}  a", f"{'g' * 32}  a"]
)
def test_a_line_that_is_no_sum_is_refused_not_passed_over(tmp_path, line):
    (tmp_path / SUMS_FILE).write_text(f"{'1' * 32}  b\n{line}\n")
    with pytest.raises(InputError, match=r"MD5SUMS: line 2 must be 32 hexadecimal"):
        noted_sums(tmp_path)
