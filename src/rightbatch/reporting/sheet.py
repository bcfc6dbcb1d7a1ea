"""A table's content, which prints itself with rich as the terminal's width allows.

A ``Sheet`` leaves its wide columns out where there is no room for them, and becomes
one block per row where there is still too little. A page shows the same sheet whole.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_GAP = 2
_ASCII = str.maketrans(
    {"×": "x", "–": "-", "µ": "u", "≥": ">=", "≤": "<=", "·": "*", "−": "-"}
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, the heading where room is short, and its importance.

    Args:
        heading: Full heading.
        short: Heading for the terminal, lines broken by hand; the full one if empty.
        align: Numbers right, words left.
        wide: Left out where the terminal is too narrow for all columns.
    """

    heading: str
    short: str = ""
    align: Literal["left", "right"] = "right"
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A table of texts with its caption and notes; prints itself with rich.

    Example:
        >>> sheet = Sheet(caption="Two", columns=(Column("one"),), rows=(("1",),))
        >>> print(as_text(sheet, width=40))
        Two
        one
        ───
          1
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        plain = options.ascii_only
        yield _text(self.caption, plain, "bold")
        narrow = [i for i, column in enumerate(self.columns) if not column.wide]
        for shown in (list(range(len(self.columns))), narrow):
            if self._width(shown) <= options.max_width:
                yield self._table(shown, plain)
                break
        else:
            yield from self._blocks(plain)
        yield from (_text(note, plain, "dim") for note in self.notes)

    def _width(self, shown: Sequence[int]) -> int:
        widths = (
            max(cell_len(text) for text in [*_lines(self.columns[i]), *self._cells(i)])
            for i in shown
        )
        return sum(widths) + _GAP * (len(shown) - 1)

    def _cells(self, i: int) -> list[str]:
        return [row[i] for row in self.rows]

    def _table(self, shown: Sequence[int], plain: bool) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
        table.show_edge = False
        for i in shown:
            column = self.columns[i]
            heading = _text("\n".join(_lines(column)), plain, "bold")
            table.add_column(
                heading, justify=column.align, no_wrap=True, vertical="bottom"
            )
        for row in self.rows:
            table.add_row(*(_text(row[i], plain) for i in shown))
        return table

    def _blocks(self, plain: bool) -> Iterable[Table]:
        for row in self.rows:
            block = Table(
                box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False
            )
            block.add_column(style="dim")
            block.add_column()
            for column, text in zip(self.columns, row, strict=True):
                block.add_row(_text(column.heading, plain), _text(text, plain))
            yield block
            yield Table(box=None)


def _lines(column: Column) -> list[str]:
    return (column.short or column.heading).split("\n")


def _text(content: str, plain: bool, style: str = "") -> Text:
    # A Text is never read as markup: names and messages come from users.
    return Text(content.translate(_ASCII) if plain else content, style=style)


def as_text(sheet: Sheet, width: int = 80) -> str:
    """Return a sheet as plain text, without colour.

    Args:
        sheet: The table.
        width: Columns of the terminal.

    Returns:
        Lines without trailing blanks.
    """
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(sheet)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()).rstrip()
