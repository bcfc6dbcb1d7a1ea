"""How long the runs of a table were: steps, examples, epochs or tokens, and the unit.

A row may count in several of these; they must agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rightbatch._checks import positive
from rightbatch.errors import TableError

COUNTS = ("steps", "examples", "epochs", "tokens")
# Steps that were rounded to whole ones, or examples to whole batches.
COUNTS_AGREE = 0.02
EPOCHS_AGREE = 2.0
# Tokens; language models are seldom trained on sequences this short.
SHORT_SEQUENCE = 128

Row = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """What a table counts in, as its reader was told.

    Args:
        examples_per_epoch: Needed for a table in epochs.
        tokens_per_example: Tokens in a sequence, where batch sizes count sequences and
            the result shall count tokens.
        example_unit: What batch sizes count; read off the table where it is None.
    """

    examples_per_epoch: float | None = None
    tokens_per_example: float | None = None
    example_unit: str | None = None

    def __post_init__(self) -> None:
        for name in ("examples_per_epoch", "tokens_per_example"):
            value = getattr(self, name)
            if value is not None:
                positive("fit", name, value)
        if self.tokens_per_example and self.example_unit not in (None, "token"):
            raise TableError(
                f"fit: --tokens-per-example makes the unit token, not "
                f"{self.example_unit!r}.",
                "leave out --unit",
            )

    @property
    def size(self) -> float:
        """Tokens in what a batch size of the table counts; 1 where nothing changes."""
        return self.tokens_per_example or 1.0


def main_count(path: Path, columns: list[str], units: Units) -> str:
    """Return the column that steps come from.

    Args:
        path: The table, for errors.
        columns: Its columns.
        units: What is known about them.

    Returns:
        One of ``steps``, ``examples``, ``epochs``, ``tokens``.

    Raises:
        TableError: None of them is there, or only epochs of unknown size.
    """
    count = next((name for name in COUNTS if name in columns), None)
    if count is None:
        raise TableError(
            f"{path}: needs one of the columns {', '.join(COUNTS)}; it has "
            f"{', '.join(columns)}.",
        )
    if count == "epochs" and units.examples_per_epoch is None:
        raise TableError(
            f"{path}: counts epochs.", "say how many examples: --examples-per-epoch N"
        )
    return count


def steps_of(count: str, value: float, batch_size: float, units: Units) -> float:
    """Return steps from a count.

    Args:
        count: Its column.
        value: Its value.
        batch_size: As the table has it.
        units: What is known about the columns.

    Returns:
        Steps.

    Example:
        >>> steps_of("epochs", 2, 8, Units(examples_per_epoch=400))
        100.0
        >>> steps_of("tokens", 819_200, 8, Units(tokens_per_example=1024))
        100.0
    """
    if count == "steps":
        return value
    if count == "epochs":
        value *= units.examples_per_epoch or 1.0
    return value / batch_size / (units.size if count == "tokens" else 1.0)


def sequence_warnings(
    columns: Sequence[str], batch_sizes: Sequence[float], units: Units
) -> list[str]:
    """Return a question where batch sizes in tokens would be less than one sequence.

    Args:
        columns: Of the table.
        batch_sizes: Of its rows.
        units: What is known about them.

    Returns:
        One sentence, or none.

    Example:
        >>> len(sequence_warnings(["batch_size", "tokens"], [8, 32], Units()))
        1
        >>> sequence_warnings(["batch_size", "tokens"], [4096, 65536], Units())
        []
    """
    told = units.tokens_per_example or units.example_unit or "unit" in columns
    counted = [name for name in COUNTS if name in columns]
    if told or counted != ["tokens"] or min(batch_sizes) >= SHORT_SEQUENCE:
        return []
    return [
        f"batch sizes are taken as tokens, and the smallest, {min(batch_sizes):g}, is "
        "less than one sequence usually has: where they count sequences, say how many "
        "tokens each has: --tokens-per-example N"
    ]


def check_agreement(
    path: Path, place: int, counts: dict[str, float], batch_size: float, units: Units
) -> None:
    """Refuse a row whose counts contradict each other.

    Of two that do, one is wrong; which, only a person knows.

    Args:
        path: The table.
        place: The row's line.
        counts: Values by column, of those that the row has.
        batch_size: As the table has it.
        units: What is known about the columns.

    Raises:
        TableError: Two counts are more than 2 % apart.
    """
    seen = {
        count: steps_of(count, value, batch_size, units)
        for count, value in counts.items()
        if count != "epochs" or units.examples_per_epoch
    }
    if len(seen) < 2:
        return
    (first, steps), *others = seen.items()
    for name, other in others:
        if abs(other / steps - 1) <= COUNTS_AGREE:
            continue
        told = counts[name]
        way_out = "remove the column that is wrong"
        if name == "tokens" and not units.tokens_per_example:
            way_out += (
                ", or, where batch_size counts sequences, say how many tokens each "
                f"has: --tokens-per-example {other / steps:.4g}"
            )
        source = "batch_size x steps" if first == "steps" else f"column {first}"
        size = batch_size * (units.size if name == "tokens" else 1.0)
        expected = steps * size
        if name == "epochs":
            expected /= units.examples_per_epoch or 1.0
        raise TableError(
            f"{path}: row {place}, column {name} is {told:g}, but {source} is "
            f"{expected:g}.",
            way_out,
        )


def check_epochs(path: Path, seen: Sequence[tuple[int, float, float]]) -> None:
    """Refuse epochs of very different sizes, where nobody said how large one is.

    Args:
        path: The table.
        seen: Line, examples and epochs of each row that has both.

    Raises:
        TableError: A row's epoch is more than twice or less than half the usual one.
    """
    sizes = [examples / epochs for _, examples, epochs in seen]
    if len(sizes) < 3:
        return
    usual = sorted(sizes)[len(sizes) // 2]
    for (place, examples, epochs), size in zip(seen, sizes, strict=True):
        # Epochs are often rounded to whole ones, hence the wide margin.
        if not 1 / EPOCHS_AGREE <= size / usual <= EPOCHS_AGREE:
            raise TableError(
                f"{path}: row {place} has {examples:g} examples in {epochs:g} epochs, "
                f"{size:g} in one; elsewhere one has {usual:g}.",
                "remove the column that is wrong",
            )


def unit_of(path: Path, place: int, row: Row, count: str, units: Units) -> str:
    """Return what a row's batch size counts, in the result.

    Args:
        path: The table.
        place: The row's line.
        row: Its cells.
        count: The column that its steps come from.
        units: What is known about the columns.

    Returns:
        ``example``, ``token``, ... in the singular.

    Raises:
        TableError: The row's unit is not the one that was said, or a row of another
            unit is counted in tokens.
    """
    own = singular(row.get("unit", "")) or ("token" if "tokens" in row else "")
    if units.tokens_per_example:
        return "token"
    if count == "tokens" and own != "token":
        raise TableError(
            f"{path}: row {place} has a batch size in {own}s and a length in tokens.",
            f"say how many tokens each {own} has: --tokens-per-example N",
        )
    told = singular(units.example_unit or "")
    if told and own and told != own:
        raise TableError(
            f"{path}: row {place} counts {own}s, and --unit says {told}.",
            "leave out --unit, or mend the table",
        )
    return told or own or "example"


def check_one_unit(path: Path, seen: Sequence[tuple[int, str, str]]) -> None:
    """Refuse a workload whose rows count in different units.

    Args:
        path: The table.
        seen: Line, workload and unit of each row.

    Raises:
        TableError: Two rows of one workload differ.
    """
    first: dict[str, tuple[int, str]] = {}
    for place, workload, unit in seen:
        before, known = first.setdefault(workload, (place, unit))
        if unit != known:
            others = [p for p, w, u in seen if (w, u) == (workload, unit)]
            rows = ", ".join(str(p) for p in others[:3])
            rows += ", ..." if len(others) > 3 else ""
            raise TableError(
                f"{path}: row {before} counts {known}s, and "
                f"{'row' if len(others) == 1 else 'rows'} {rows} "
                f"{'counts' if len(others) == 1 else 'count'} {unit}s.",
                "make it one unit, or name two workloads",
            )


def singular(unit: str) -> str:
    """Return a unit's name in lower case, one of it.

    Example:
        >>> singular("Tokens"), singular("sample"), singular("")
        ('token', 'sample', '')
    """
    unit = unit.strip().lower()
    return unit[:-1] if len(unit) > 2 and unit.endswith("s") else unit
