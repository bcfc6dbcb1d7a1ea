"""The policies by name: what each is, and how to get one from a text."""

from collections.abc import Mapping
from typing import Any

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.policies.contract import Policy
from rightbatch.policies.entries import ENTRIES
from rightbatch.policies.hysteresis import Dwell, OnlyIfSure, Wait
from rightbatch.policies.making import Given, Parameter, PolicyContext, PolicyEntry
from rightbatch.policies.schedules import read_count
from rightbatch.policies.wrappers import Clip, SpillToLr

__all__ = [
    "POLICIES",
    "WRAPPER_PARAMETERS",
    "Parameter",
    "PolicyContext",
    "PolicyEntry",
    "named_policy",
]

POLICIES: Mapping[str, PolicyEntry] = {entry.name: entry for entry in ENTRIES}
"""What each policy says of itself, by its name."""

WRAPPER_PARAMETERS: Mapping[str, Parameter] = {
    "dwell": Parameter(
        meaning="updates from one question to the next", default=1, kind="count"
    ),
    "wait": Parameter(
        meaning="updates before the batch may change", default=0, kind="count"
    ),
    "sure": Parameter(
        meaning="change only where the noise scale's interval calls for it",
        default=False,
        kind="flag",
    ),
    "spill": Parameter(
        meaning="what exceeds the largest batch cuts the learning rate",
        default=False,
        kind="flag",
    ),
}
"""Parameters that every text may set, where the policy has none of that name."""

_NOTHING_KNOWN = PolicyContext()
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def named_policy(
    text: str,
    *,
    initial_batch_size: float,
    max_batch_size: float | None = None,
    context: PolicyContext = _NOTHING_KNOWN,
) -> Policy[Any]:
    """Return a policy by its name and parameters, ready to be followed.

    It is wrapped from the inside out: ``sure`` in OnlyIfSure; clipped to the largest
    batch, and from below to one example per replica, or for policies that follow the
    noise to the initial batch, for which the learning rate was chosen; with ``spill``
    what exceeds the largest batch cuts the rate; ``wait`` in Wait; ``dwell`` in Dwell.
    AdaDamp evaluates the loss every 20 updates unless told, as adadamp's default is.

    Args:
        text: ``name``, ``name:key=value,key=value``, or ``name:value`` for its first
            parameter; hyphens, underscores and capitals make no difference in names of
            policies; numbers may end in K, M, B or T, for 1e3 to 1e12. Names and
            parameters are those of :data:`POLICIES`, and :data:`WRAPPER_PARAMETERS`
            beside them.
        initial_batch_size: In examples.
        max_batch_size: In examples; else the size of the data set, where known.
        context: What the run knows.

    Returns:
        The policy.

    Raises:
        InputError: The policy or a parameter is unknown (near names are offered), a
            value is wrong or missing, or batch sizes are out of order.

    Example:
        >>> policy = named_policy("padadamp:rate=.05,dwell=10", initial_batch_size=16,
        ...     max_batch_size=512)
        >>> policy.policy.policy
        PadaDamp(initial_batch_size=16, rate=0.05)
    """
    who = "policy"
    name, _, rest = text.partition(":")
    entry = _find(name)
    _checks.positive(who, "initial_batch_size", initial_batch_size)
    if initial_batch_size < context.num_replicas:
        raise InputError(
            f"{who}: `initial_batch_size` must be at least one example for each of "
            f"{context.num_replicas} replicas, got {initial_batch_size:g}."
        )
    largest = _largest(initial_batch_size, max_batch_size, context.dataset_size)
    # Its own come first, and go before those around it that have the same name.
    known = {**entry.parameters, **WRAPPER_PARAMETERS, **entry.parameters}
    values = {key: one.default for key, one in known.items()}
    if "dwell" not in entry.parameters:
        values["dwell"] = entry.dwell
    values |= _read(entry, known, rest)
    for key, one in entry.parameters.items():
        if one.required and values[key] is None:
            raise InputError(
                f"{who}: {entry.name} needs `{key}`: {one.meaning}.",
                f"write {entry.name}:{key}=...",
            )
    given = Given(
        name=entry.name,
        values={key: values[key] for key in entry.parameters},
        initial_batch_size=initial_batch_size,
        max_batch_size=largest,
        context=context,
    )
    around = {
        key: values[key] for key in WRAPPER_PARAMETERS if key not in entry.parameters
    }
    return _wrapped(entry, given, around)


def _find(name: str) -> PolicyEntry:
    by_key = {_key(known): entry for known, entry in POLICIES.items()}
    entry = by_key.get(_key(name))
    if entry is not None:
        return entry
    word = name.strip().lower().replace("_", "-")
    near = _checks.did_you_mean(word, list(POLICIES))
    way_out = near or f"one of {', '.join(POLICIES)}"
    raise InputError(f"policy: there is no policy {name.strip()!r}.", way_out)


def _key(name: str) -> str:
    return name.strip().lower().replace("-", "").replace("_", "")


def _largest(
    initial: float, largest: float | None, dataset_size: int | None
) -> float | None:
    if largest is not None:
        _checks.positive("policy", "max_batch_size", largest)
        if largest < initial:
            raise InputError(
                "policy: `max_batch_size` must be >= `initial_batch_size`, got "
                f"{largest:g} and {initial:g}."
            )
    if dataset_size is None:
        return largest
    if initial > dataset_size:
        raise InputError(
            "policy: `initial_batch_size` must be at most the data set's "
            f"{dataset_size} examples, got {initial:g}."
        )
    return dataset_size if largest is None else min(largest, dataset_size)


def _read(
    entry: PolicyEntry, known: Mapping[str, Parameter], text: str
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for place, part in enumerate(text.split(",") if text.strip() else []):
        key, equals, value = part.partition("=")
        key = key.strip().replace("-", "_")
        # A value may have an equals sign of its own: wsd:tail=0.1.
        is_bare = not (equals and key.isidentifier())
        if is_bare and place == 0 and entry.parameters:
            key, value = next(iter(entry.parameters)), part
        if key not in known:
            near = _checks.did_you_mean(key, list(known))
            raise InputError(
                f"policy: {entry.name} has no parameter {key!r}.",
                near or f"it has {', '.join(known)}",
            )
        if key in values:
            raise InputError(f"policy: `{key}` of {entry.name} is given twice.")
        values[key] = _value(entry.name, key, known[key], value.strip())
    return values


def _value(policy: str, key: str, parameter: Parameter, text: str) -> Any:
    if parameter.kind == "word" and text:
        return text
    if parameter.kind == "flag" and text.lower() in _FLAGS:
        return _FLAGS[text.lower()]
    try:
        if parameter.kind in ("number", "count"):
            number = read_count(text)
            is_count = parameter.kind == "count" and number.is_integer()
            return int(number) if is_count else number
    except ValueError:
        pass
    wanted = {"word": "a word", "flag": "true or false"}.get(parameter.kind, "a number")
    raise InputError(f"policy: `{key}` of {policy} must be {wanted}, got {text!r}.")


def _wrapped(
    entry: PolicyEntry, given: Given, around: Mapping[str, Any]
) -> Policy[Any]:
    policy = entry.make(given)
    if around["sure"]:
        policy = OnlyIfSure(policy)
    largest = given.max_batch_size
    if not entry.is_fixed:
        least = given.context.num_replicas
        low = given.initial_batch_size if entry.least == "initial" else least
        policy = Clip(policy, low=low, high=None if around["spill"] else largest)
    if around["spill"]:
        if largest is None:
            raise given.missing("a largest batch size to spill", "give max_batch_size")
        policy = SpillToLr(policy, cap=largest)
    if around.get("wait"):
        policy = Wait(policy, updates=around["wait"])
    if around.get("dwell", 1) != 1:
        policy = Dwell(policy, updates=around["dwell"])
    return policy
