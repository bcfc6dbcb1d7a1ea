"""Fetching, from files of this machine that stand for published ones."""

import hashlib
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from rightbatch.errors import FetchError, InputError
from rightbatch.experiments.data import fetch as fetch_module
from rightbatch.experiments.data.checksums import SUMS_FILE, check_sum
from rightbatch.experiments.data.fetch import fetch, files_of, folder_for
from rightbatch.experiments.data.published import PublishedFile

CONTENTS = {"a.gz": bytes(range(256)) * 10, "b.gz": b"short"}


def published(name: str, *folders: Path, content: bytes = b"") -> PublishedFile:
    content = content or CONTENTS[name]
    return PublishedFile(
        name=name,
        size=len(content),
        md5=hashlib.md5(content).hexdigest(),
        urls=tuple((folder / name).as_uri() for folder in folders),
    )


@pytest.fixture
def server(tmp_path, monkeypatch) -> Path:
    """Return a folder from which the data set `tiny` is fetched."""
    folder = tmp_path / "server"
    folder.mkdir()
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    files = tuple(published(name, folder) for name in CONTENTS)
    monkeypatch.setattr(fetch_module, "PUBLISHED", {"tiny": files})
    monkeypatch.setattr(fetch_module, "CHUNK", 1000)
    return folder


def test_files_are_fetched_checked_and_their_sums_noted(server, tmp_path):
    told: list[int] = []
    paths = fetch("tiny", tmp_path / "data", told.append)
    folder = tmp_path / "data" / "tiny"
    assert paths == (folder / "a.gz", folder / "b.gz")
    assert [path.read_bytes() for path in paths] == list(CONTENTS.values())
    assert sorted(path.name for path in folder.iterdir()) == [SUMS_FILE, *CONTENTS]
    assert told == sorted(told)
    assert told[-1] == 2565
    paths[1].write_bytes(b"shirt")
    with pytest.raises(InputError, match="its MD5 sum is"):
        check_sum(paths[1])


def test_what_is_there_already_is_not_fetched_again(server, tmp_path):
    fetch("tiny", tmp_path)
    for name in CONTENTS:
        (server / name).unlink()
    assert len(fetch("tiny", tmp_path)) == 2


def test_a_file_of_that_name_that_is_another_is_neither_taken_nor_overwritten(
    server, tmp_path
):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "b.gz").write_bytes(b"other")
    with pytest.raises(InputError, match="is there already and is not the published"):
        fetch("tiny", tmp_path)
    assert (tmp_path / "tiny" / "b.gz").read_bytes() == b"other"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"shor", "it has 4 of 5 bytes"),
        (b"shorter than the rest", "it has more than 5 bytes"),
        (b"shirt", "its MD5 sum is [0-9a-f]{32}, not [0-9a-f]{32}"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_not_the_published_one_leaves_nothing_behind(
    server, tmp_path, content, match
):
    if content is None:
        (server / "b.gz").unlink()
    else:
        (server / "b.gz").write_bytes(content)
    with pytest.raises(FetchError, match=rf"b.gz could not be fetched: file:.*{match}"):
        fetch("tiny", tmp_path)
    names = sorted(path.name for path in (tmp_path / "tiny").iterdir())
    assert names == [SUMS_FILE, "a.gz"]


def test_the_second_place_is_tried_where_the_first_fails(server, tmp_path, monkeypatch):
    files = (published("a.gz", tmp_path / "gone", server),)
    monkeypatch.setattr(fetch_module, "PUBLISHED", {"tiny": files})
    assert fetch("tiny", tmp_path)[0].read_bytes() == CONTENTS["a.gz"]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/b.gz":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENTS["a.gz"])))
        self.end_headers()
        short = self.path.startswith("/short")
        self.wfile.write(CONTENTS["a.gz"][: 1500 if short else None])

    def log_message(self, *_):
        pass


def test_a_connection_that_ends_early_and_a_page_that_is_gone_are_told(
    tmp_path, monkeypatch
):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        Thread(target=web.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{web.server_port}"
        whole, gone = (published(name, tmp_path) for name in CONTENTS)
        whole = replace(whole, urls=(f"{root}/short/a.gz", f"{root}/a.gz"))
        gone = replace(gone, urls=(f"{root}/b.gz",))
        monkeypatch.setattr(fetch_module, "PUBLISHED", {"tiny": (whole, gone)})
        with pytest.raises(
            FetchError, match=r"b.gz could not be fetched: .* Error 404"
        ):
            fetch("tiny", tmp_path)
        assert (tmp_path / "tiny" / "a.gz").read_bytes() == CONTENTS["a.gz"]
        short = replace(whole, urls=whole.urls[:1])
        monkeypatch.setattr(fetch_module, "PUBLISHED", {"tiny": (short,)})
        with pytest.raises(
            FetchError, match="a.gz could not be fetched: .*of 2,560 byt"
        ):
            fetch("tiny", tmp_path / "other")
        web.shutdown()


def test_an_interrupted_fetch_leaves_nothing_behind(server, tmp_path):
    def interrupt(_had: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("tiny", tmp_path, interrupt)
    assert list((tmp_path / "tiny").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(FetchError, match="file/tiny: cannot be made: Not a directory"):
        fetch("tiny", tmp_path / "file")

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(fetch_module.tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(FetchError, match="a.gz: cannot be written: Permission denied"):
        fetch("tiny", tmp_path)


def test_a_data_set_that_is_not_known_is_refused_and_the_near_ones_named():
    with pytest.raises(InputError, match="did you mean mnist"):
        files_of("mnits")
    with pytest.raises(InputError, match="there are cifar10, cifar100, fashion-mnist"):
        files_of("imagenet")


def test_a_data_set_published_in_two_forms_is_fetched_in_one():
    assert [file.name for file in files_of("cifar100")] == ["cifar-100-python.tar.gz"]
    assert len(files_of("fashion-mnist")) == 2


def test_files_go_where_they_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("RIGHTBATCH_DATA", str(tmp_path))
    assert folder_for("mnist") == tmp_path / "mnist"
    assert folder_for("mnist", tmp_path / "x") == tmp_path / "x" / "mnist"
    monkeypatch.delenv("RIGHTBATCH_DATA")
    assert folder_for("mnist").parts[-2:] == ("rightbatch", "mnist")
