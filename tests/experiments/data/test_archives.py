"""Files read out of archives and folders."""

import random
import tarfile

import pytest
from experiments.data.example_images import write_files, write_tar

from rightbatch.errors import InputError
from rightbatch.experiments.data.archives import members

FILES = {"a/one.txt": b"1", "a/b/two.txt": b"22", "three.bin": b"333"}


@pytest.mark.parametrize("packing", ["tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_an_archive_gives_what_its_folder_gives(tmp_path, packing):
    folder = write_files(tmp_path / "folder", FILES)
    archive = write_tar(tmp_path / f"files.{packing}", FILES)
    found = dict(members(archive, lambda name: name.suffix == ".txt"))
    assert found == {"a/one.txt": b"1", "a/b/two.txt": b"22"}
    assert found == dict(members(folder, lambda name: name.suffix == ".txt"))


def test_links_and_folders_in_an_archive_are_passed_over(tmp_path):
    path = tmp_path / "files.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo(f"of-kind-{kind!r}")
            member.type, member.linkname = kind, "/etc/hostname"
            archive.addfile(member)
    assert list(members(path, lambda _: True)) == []


@pytest.mark.parametrize("packing", ["tar.gz", "tar.xz"])
def test_an_archive_cut_short_is_refused(tmp_path, packing):
    path = write_tar(tmp_path / f"files.{packing}", {"a": bytes(range(256)) * 4000})
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match=f"files.{packing}: cut short"):
        list(members(path, lambda _: True))


@pytest.mark.parametrize("packing", ["tar.gz", "tar.xz"])
def test_a_single_damaged_byte_is_found(tmp_path, packing):
    noise = random.Random(0).randbytes(100_000)
    path = write_tar(tmp_path / f"files.{packing}", {"a": noise})
    content = bytearray(path.read_bytes())
    content[50_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cut short or damaged: .*fetch the file"):
        list(members(path, lambda _: True))


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "files.tar.gz"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match="not a tar archive.*fetch the file again"):
        list(members(path, lambda _: True))
    with pytest.raises(InputError, match=r"absent: .*No such file"):
        list(members(tmp_path / "absent", lambda _: True))


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    folder = write_files(tmp_path, FILES)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(InputError, match=r"two.txt: cannot be read: Permission denied"):
        list(members(folder, lambda _: True))


def test_an_unpacked_archive_with_a_damaged_header_or_no_end_is_refused(tmp_path):
    path = write_tar(tmp_path / "files.tar", {name: b"x" * 600 for name in "abc"})
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[1536] ^= 1  # the first byte of b's header
    for content in (
        bytes(damaged),
        *(whole[: 512 * blocks] for blocks in range(1, 11)),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"files.tar: cut short or damaged: "):
            list(members(path, lambda _: True))
    path.write_bytes(whole[: 512 * 11])
    assert [name for name, _ in members(path, lambda _: True)] == ["a", "b", "c"]
