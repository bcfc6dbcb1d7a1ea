"""Every kind of communication by its name, and rebuilt from its JSON form."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from rightbatch._checks import did_you_mean, one_of
from rightbatch.errors import InputError
from rightbatch.step_time.collectives import (
    HalvingDoublingCommunication,
    RingCommunication,
    ShardedCommunication,
    TwoLevelCommunication,
)
from rightbatch.step_time.communication import (
    Communication,
    ConstantCommunication,
    LinearCommunication,
    NoCommunication,
)

_CLASSES = (
    NoCommunication,
    ConstantCommunication,
    LinearCommunication,
    RingCommunication,
    HalvingDoublingCommunication,
    ShardedCommunication,
    TwoLevelCommunication,
)
COMMUNICATIONS = {one.kind: one for one in _CLASSES}
# What the same things are called elsewhere.
ALIASES = {
    "all_reduce": "constant",
    "server": "linear",
    "parameter_server": "linear",
    "fsdp": "sharded",
    "zero3": "sharded",
}


def communication_kind(name: str, who: str = "communication") -> str:
    """Return the kind that a name stands for.

    Args:
        name: A kind or another name of it; hyphens do as well as underscores.
        who: Who refuses.

    Returns:
        The kind as its JSON form has it.

    Example:
        >>> communication_kind("halving-doubling"), communication_kind("server")
        ('halving_doubling', 'linear')
    """
    plain = name.strip().lower().replace("-", "_")
    one_of(who, "kind", plain, [*COMMUNICATIONS, *ALIASES])
    return ALIASES.get(plain, plain)


def communication_fields(kind: str) -> tuple[str, ...]:
    """Return the names of what a kind of communication is made of.

    Args:
        kind: As in its JSON form.

    Example:
        >>> communication_fields("linear")
        ('seconds_per_replica',)
    """
    return tuple(one.name for one in fields(COMMUNICATIONS[kind]))


def communication_from_dict(form: object, who: str = "communication") -> Communication:
    """Return the communication that a JSON form describes.

    Args:
        form: ``kind`` and its fields, as `to_dict` gives them; `interval` and
            `intervals`, which a fit adds, are passed over.
        who: Who refuses.

    Returns:
        The communication.

    Raises:
        InputError: `form` is no table, the kind is unknown, a field is missing,
            unknown or out of range; near names are offered.

    Example:
        >>> communication_from_dict({"kind": "server", "seconds_per_replica": 0.002})
        LinearCommunication(seconds_per_replica=0.002)
    """
    given = dict(cast("Mapping[str, Any]", form)) if isinstance(form, Mapping) else {}
    name = given.pop("kind", None)
    if not isinstance(name, str):
        raise InputError(
            f"{who}: must hold a `kind`, got {form!r}.",
            f"kinds: {', '.join(COMMUNICATIONS)}",
        )
    kind = communication_kind(name, who)
    for added in ("interval", "intervals"):
        given.pop(added, None)
    check_communication_fields(kind, tuple(given), who)
    return COMMUNICATIONS[kind](**given)


def check_communication_fields(kind: str, given: tuple[str, ...], who: str) -> None:
    """Check that the fields of a kind are given, and nothing else.

    Args:
        kind: As in its JSON form.
        given: Names of what was given.
        who: Who refuses.

    Raises:
        InputError: One is unknown, or missing.
    """
    wanted = communication_fields(kind)
    takes = ", ".join(wanted) or "nothing else"
    for name in given:
        if name not in wanted:
            way_out = did_you_mean(name, wanted) or f"it takes {takes}"
            raise InputError(f"{who}: {kind} has no `{name}`.", way_out)
    missing = [name for name in wanted if name not in given]
    if missing:
        raise InputError(f"{who}: {kind} needs `{missing[0]}`.", f"it takes {takes}")
