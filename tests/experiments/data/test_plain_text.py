"""Text files: gzipped or not, and what is refused."""

import gzip

import pytest

from rightbatch.errors import InputError
from rightbatch.experiments.data.plain_text import lines_of, read_text


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_read_gzipped_or_not_whatever_its_name(tmp_path, packed):
    content = "Büsche\nund\n".encode()
    path = tmp_path / "text"
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_text(path) == "Büsche\nund\n"


def test_line_ends_and_byte_order_marks_of_other_systems_are_understood(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeffone\r\ntwo\r\n".encode())
    assert lines_of(read_text(path)) == ["one", "two"]


def test_only_a_line_feed_ends_a_line():
    # Each of these is an end of line to str.splitlines, and stands in Europarl.
    odd = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"
    assert len(odd.splitlines()) == 7
    assert lines_of(f"{odd}\nlast") == [odd, "last"]


def test_an_empty_line_within_and_at_the_end_is_a_line():
    assert lines_of("one\n\nthree\n\n") == ["one", "", "three", ""]


def test_the_line_that_is_not_utf_8_is_named(tmp_path):
    path = tmp_path / "latin"
    path.write_bytes(b"eins\nzwei\nm\xfcde\n")
    with pytest.raises(InputError, match=r"latin: line 3 is not UTF-8.*iconv"):
        read_text(path)


@pytest.mark.parametrize("content", [b"", b"\n \n", gzip.compress(b"")])
def test_an_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "empty"
    path.write_bytes(content)
    with pytest.raises(InputError, match="empty: the file is empty"):
        read_text(path)


def test_a_file_that_is_cut_short_or_missing_is_refused(tmp_path):
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"some text that is long enough")[:-12])
    with pytest.raises(InputError, match=r"cut\.gz: cannot be read.*fetch"):
        read_text(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path / "missing")
