"""The policies that the options of ``train`` and ``replay`` name."""

import re
from collections.abc import Sequence
from typing import Any

from rightbatch.errors import InputError
from rightbatch.policies import (
    POLICIES,
    Policy,
    PolicyContext,
    check_policy,
    named_policy,
)

BASELINE = "constant"
# What a run of the command has no way of measuring, and what to do instead.
_UNMEASURED = {
    "inner_product_variance": "rightbatch.controller.Sensing measures it in a loop of "
    "your own",
    "tokens": "count in unit=example, or unit=epoch",
}


def split_policies(option: str, text: str) -> tuple[str, ...]:
    """Return the policies of a list.

    Commas, semicolons and blanks part them; ``key=value`` without a colon goes with the
    policy before it, and so does what begins with a digit.

    Args:
        option: The option they come from, for the error.
        text: Such as ``constant adadamp geodamp:factor=2,delay=5``.

    Returns:
        One text per policy.

    Raises:
        InputError: There is none, a setting comes before any policy, or a policy stands
            twice.

    Example:
        >>> split_policies("--compare", "constant, geodamp:factor=2,delay=5 adadamp")
        ('constant', 'geodamp:factor=2,delay=5', 'adadamp')
        >>> split_policies("--policy", "schedule:0:16 4000:64,unit=example")
        ('schedule:0:16 4000:64,unit=example',)
    """
    found: list[str] = []
    for piece in filter(None, re.split(r"[,;\s]+", text)):
        is_setting = "=" in piece and ":" not in piece
        if not is_setting and not re.match(r"[\d.]", piece):
            found.append(piece)
            continue
        if not found:
            raise InputError(
                f"{option}: {piece!r} comes before any policy.",
                "write policy:key=value,key=value",
            )
        head = found[-1]
        joint = " " if not is_setting else ("," if ":" in head else ":")
        found[-1] = f"{head}{joint}{piece}"
    if not found:
        raise InputError(f"{option}: no policy in {text!r}.", _known())
    twice = [one for place, one in enumerate(found) if one in found[:place]]
    if twice:
        raise InputError(f"{option}: {twice[0]} stands twice in {text!r}.")
    return tuple(found)


def with_dwell(text: str, dwell: int | None) -> str:
    """Return a policy that dwells as the option says, unless it says so itself.

    Args:
        text: A policy.
        dwell: Updates between two questions; None to leave it alone.

    Returns:
        Its text.

    Example:
        >>> with_dwell("geodamp:factor=2", 10), with_dwell("adadamp:dwell=5", 10)
        ('geodamp:factor=2,dwell=10', 'adadamp:dwell=5')
    """
    has_its_own = re.search(r"\bdwell\s*=", text)
    if dwell is None or has_its_own or text == BASELINE:
        return text
    return f"{text}{',' if ':' in text else ':'}dwell={dwell}"


def make_policies(
    option: str,
    names: Sequence[str],
    sizes: tuple[float, float | None],
    context: PolicyContext,
) -> dict[str, Policy[Any]]:
    """Return policies by their texts.

    Args:
        option: The option they come from, for the error.
        names: Their texts.
        sizes: The initial and the largest batch size.
        context: What the run knows.

    Returns:
        One policy per text.

    Raises:
        InputError: A text is no policy.
    """
    made: dict[str, Policy[Any]] = {}
    for name in names:
        try:
            made[name] = named_policy(
                name,
                initial_batch_size=sizes[0],
                max_batch_size=sizes[1],
                context=context,
            )
        except InputError as error:
            said = str(error).removeprefix("policy: ")
            raise InputError(f"{option} {name}: {said}") from None
    return made


def refuse_unmeasured(option: str, name: str, policy: Policy[Any]) -> None:
    """Refuse a policy that needs what the command cannot measure.

    Args:
        option: The option it comes from.
        name: Its text.
        policy: Made from it.

    Raises:
        InputError: It does; what would provide it is named.
    """
    for need in sorted(check_policy(option, policy)):
        if need in _UNMEASURED:
            raise InputError(
                f"{option} {name}: needs `{need}`, which train does not measure.",
                _UNMEASURED[need],
            )


def _known() -> str:
    return f"one of {', '.join(POLICIES)}"
