import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rightbatch.reporting.sheet import Column, Sheet, as_text

SHEET = Sheet(
    caption="Times",
    columns=(Column("batch size", "batch\nsize"), Column("spread", wide=True)),
    rows=(("1,024", "206–218 µs"), ("64", "≥ 1×")),
    notes=("a note",),
)


def test_a_wide_column_stands_where_there_is_room_and_goes_where_there_is_not():
    assert "206–218 µs" in as_text(SHEET, width=30)
    narrow = as_text(SHEET, width=12)
    assert "1,024" in narrow
    assert "206–218" not in narrow


def test_a_sheet_too_wide_for_its_terminal_becomes_blocks_that_lose_nothing():
    columns = (Column("batch size"), Column("step"), Column("spread"))
    sheet = Sheet(caption="Times", columns=columns, rows=(("64", "2 ms", "2–3 ms"),))
    lines = as_text(sheet, width=23).splitlines()
    assert lines == [
        "Times",
        "batch size  64",
        "step        2 ms",
        "spread      2–3 ms",
    ]
    assert as_text(sheet, width=24).splitlines()[-1] == "        64  2 ms  2–3 ms"


@given(st.integers(20, 200))
def test_no_line_is_wider_than_the_terminal(width):
    assert all(len(line) <= width for line in as_text(SHEET, width).splitlines())


def test_a_terminal_of_ascii_gets_ascii():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=stream, width=60).print(SHEET)
    stream.flush()
    text = stream.buffer.getvalue().decode("ascii")
    assert "206-218 us" in text
    assert ">= 1x" in text


def test_no_color_is_honoured(monkeypatch):
    def printed() -> str:
        console = Console(file=io.StringIO(), width=60, force_terminal=True)
        console.print(SHEET)
        return console.file.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in printed()


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "[link=http://x]y"])
def test_a_name_is_never_read_as_markup(name):
    sheet = Sheet(caption=name, columns=(Column("name"),), rows=((name,),))
    assert as_text(sheet).count(name) == 2
