"""A table of a TOML file, read key by key: what is not understood is refused."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rightbatch import _checks
from rightbatch.cli.quantities import quantity
from rightbatch.errors import InputError

_NAMES = {
    str: "a text",
    bool: "true or false",
    dict: "a table",
    list: "a list",
}


@dataclass(frozen=True, slots=True)
class Section:
    """A table of a file, with the place it stands at.

    Args:
        where: File and table, for errors.
        values: What it holds.

    Example:
        >>> section = Section("c.toml, job", {"weight": 2, "overhead": "50 ms"})
        >>> section.positive("weight"), section.quantity("overhead", "time")
        (2, 0.05)
    """

    where: str
    values: Mapping[str, Any]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def only(self, known: Sequence[str]) -> None:
        """Refuse keys that are not known.

        Args:
            known: Keys that may stand here.

        Raises:
            InputError: There is another one; near names are offered.
        """
        for key in self.values:
            if key not in known:
                way_out = _checks.did_you_mean(key, known)
                raise InputError(
                    f"{self.where}: there is no key {key!r}.",
                    way_out or f"keys: {', '.join(known)}",
                )

    def positive(self, key: str, default: float | None = None) -> Any:
        """Return a positive number, or the default where the key is not there."""
        if key not in self.values:
            return default
        return _checks.positive(self.where, key, self.values[key])

    def number(self, key: str, default: float) -> float:
        """Return a number, or the default where the key is not there."""
        if key not in self.values:
            return default
        return _checks.finite(self.where, key, self.values[key])

    def whole(self, key: str) -> int | None:
        """Return a whole number of at least one; None where the key is not there."""
        if key not in self.values:
            return None
        return _checks.positive_integer(self.where, key, self.values[key])

    def quantity(self, key: str, kind: str, default: float = 0.0) -> float:
        """Return a time, a size or a bandwidth in seconds and bytes."""
        if key not in self.values:
            return default
        return quantity(f"{self.where}: `{key}`", kind, self.values[key])

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """Return a value of a kind, or the default where the key is not there.

        Args:
            key: Its name.
            kind: ``str``, ``bool``, ``dict`` or ``list``.
            default: For a key that is not there.

        Returns:
            The value.

        Raises:
            InputError: It is of another kind.
        """
        if key not in self.values:
            return default
        value = self.values[key]
        if not isinstance(value, kind):
            raise InputError(
                f"{self.where}: `{key}` must be {_NAMES[kind]}, got {value!r}."
            )
        return value

    def table(self, key: str) -> "Section | None":
        """Return a table in this one; None where the key is not there."""
        found = self.get(key, dict)
        between = ", " if self.where.endswith(".toml") else "."
        return None if found is None else Section(f"{self.where}{between}{key}", found)

    def need(self, *keys: str) -> None:
        """Refuse the table where a key is missing.

        Args:
            *keys: That must be there.

        Raises:
            InputError: One is not.
        """
        for key in keys:
            if key not in self.values:
                held = ", ".join(self.values) or "nothing"
                raise InputError(f"{self.where}: needs `{key}`; it has {held}.")


def read_toml(path: Path) -> Section:
    """Return the whole of a TOML file.

    Args:
        path: The file.

    Returns:
        Its top table.

    Raises:
        InputError: It cannot be read or is not TOML.
    """
    try:
        with path.open("rb") as content:
            return Section(path.name, tomllib.load(content))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not TOML: {error}.") from None
