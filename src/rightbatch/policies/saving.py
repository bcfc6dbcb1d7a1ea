"""What of a policy can be written down: its memory, and which policy it is."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

import numpy as np

from rightbatch.errors import InputError
from rightbatch.policies.contract import Policy, policy_name

_NUMBER = "number"
_PLAIN = (bool, int, float, str, np.generic)


def pack_state(state: Any) -> Any:
    """Return a policy's memory in the form that JSON has: tuples become lists.

    JSON has no infinity and no NaN: such a number becomes ``{"number": "inf"}``.

    Args:
        state: None, a truth value, a number, a string, or a (named) tuple or list of
            these, nested as deep as need be: what every policy here remembers.

    Returns:
        The same, which the strictest JSON writes and reads without loss.

    Raises:
        InputError: There is something else in it.

    Example:
        >>> pack_state((None, (2.0, "loss 2")))
        [None, [2.0, 'loss 2']]
        >>> pack_state((16.0, float("inf")))
        [16.0, {'number': 'inf'}]
    """
    if isinstance(state, np.generic):
        return pack_state(state.item())
    if isinstance(state, float) and not math.isfinite(state):
        return {_NUMBER: repr(state)}
    if state is None or isinstance(state, _PLAIN):
        return state
    if isinstance(state, (tuple, list)):
        return [pack_state(one) for one in state]
    raise InputError(
        f"pack_state: a policy's memory must be numbers, strings, None and tuples of "
        f"these, got {state!r}.",
        "keep plain numbers",
    )


def unpack_state(policy: Policy[Any], packed: Any) -> Any:
    """Return a policy's memory from its packed form.

    Args:
        policy: Whose memory it is; named tuples are rebuilt as its `init` has them.
        packed: From :func:`pack_state`, through JSON or not.

    Returns:
        The memory, equal to the one that was packed.

    Example:
        >>> from rightbatch.policies import AdaDamp
        >>> unpack_state(AdaDamp(initial_batch_size=8), [2.0, 16.0])
        (2.0, 16.0)
    """
    return _unpacked(policy.init(), packed)


def _unpacked(example: Any, packed: Any) -> Any:
    if isinstance(packed, Mapping):
        return float(cast(Mapping[str, str], packed)[_NUMBER])
    if not isinstance(packed, list):
        return packed
    examples = example if isinstance(example, tuple) else ()
    if len(examples) != len(packed):
        return tuple(_unpacked(None, one) for one in packed)
    parts = [_unpacked(one, two) for one, two in zip(examples, packed, strict=True)]
    return type(example)(*parts) if hasattr(example, "_fields") else tuple(parts)


def policy_signature(policy: Policy[Any]) -> dict[str, Any]:
    """Return which policy it is, with its settings, for a checkpoint or a report.

    Args:
        policy: Any; one that is no dataclass tells its name alone.

    Returns:
        ``class`` and the settings in the form that JSON has, policies inside likewise.
        Two policies that decide alike by their settings have equal signatures.

    Example:
        >>> from rightbatch.policies import Constant, Dwell
        >>> found = policy_signature(Dwell(Constant(batch_size=8), updates=20))
        >>> found["class"], found["updates"], found["policy"]
        ('Dwell', 20, {'class': 'Constant', 'batch_size': 8})
    """
    signature = _described(policy)
    return signature if isinstance(signature, dict) else {"class": policy_name(policy)}


def _described(value: Any) -> Any:
    if value is None or isinstance(value, _PLAIN):
        return pack_state(value)
    if is_dataclass(value) and not isinstance(value, type):
        settings = {
            one.name: _described(getattr(value, one.name))
            for one in fields(value)
            if one.init
        }
        return {"class": type(value).__name__, **settings}
    if isinstance(value, Mapping):
        return {str(key): _described(one) for key, one in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(str(one) for one in value)
    if isinstance(value, (tuple, list, np.ndarray)):
        return [_described(one) for one in value]
    # Of a function its name is all that lasts from one run to the next.
    return getattr(value, "__qualname__", type(value).__name__)
