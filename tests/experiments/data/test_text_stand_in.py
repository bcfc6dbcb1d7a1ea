"""Generated texts: real formats, the same each time, pairs that belong together."""

import pytest

from rightbatch.experiments.data.parallel_text import read_parallel
from rightbatch.experiments.data.plain_text import read_text
from rightbatch.experiments.data.text_stand_in import TEXT_STAND_INS
from rightbatch.experiments.workloads import language_model, translation


@pytest.mark.parametrize("name", sorted(TEXT_STAND_INS))
def test_a_stand_in_is_the_same_each_time(name, tmp_path):
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        TEXT_STAND_INS[name](folder)
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes()


def test_the_files_are_those_that_the_workloads_look_for(tmp_path):
    wanted = {
        translation.MULTI30K: translation.MULTI30K_FILES,
        translation.EUROPARL: translation.EUROPARL_FILES,
        language_model.DATA_SET: language_model.FILES,
    }
    assert wanted.keys() == TEXT_STAND_INS.keys()
    for name, files in wanted.items():
        TEXT_STAND_INS[name](tmp_path / name)
        assert {path.name for path in (tmp_path / name).iterdir()} == set(files)


def test_a_line_is_the_translation_of_the_same_line(tmp_path):
    TEXT_STAND_INS["europarl"](tmp_path)
    files = (tmp_path / f"newstest2013.{language}" for language in ("de", "en"))
    pairs = read_parallel(*files)
    assert len(pairs) == 40
    for pair in pairs:
        assert ("Mann" in pair.source) == pair.target.startswith("A man ")
        assert ("Garten" in pair.source) == ("garden" in pair.target)


def test_the_plain_text_is_long_enough_to_train_on(tmp_path):
    TEXT_STAND_INS["lm_text"](tmp_path)
    assert 20_000 < len(read_text(tmp_path / "tinyshakespeare.txt.gz")) < 40_000
