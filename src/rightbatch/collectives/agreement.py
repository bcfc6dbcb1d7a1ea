"""One word for all replicas: the first one's, and whether all say the same."""

import hashlib
import json
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from rightbatch._checks import positive
from rightbatch.collectives.group import exchange_device, is_distributed
from rightbatch.errors import InputError, ReplicaError

# What most words fit in, their length included: one exchange then.
WORD_BYTES = 1024
_LENGTH_BYTES = 8


def agree(value: Any, group: dist.ProcessGroup | None = None) -> Any:
    """Return the first replica's value, on all of them.

    One exchange for up to 1,016 bytes of JSON, two for more. Every replica has to ask.

    Args:
        value: What JSON holds: numbers (exactly, infinities and NaN too), text, None,
            lists, dicts with text for keys. Tuples come back as lists.
        group: The replicas; all processes when None.

    Raises:
        InputError: JSON does not hold it.

    Example:
        >>> agree({"batch_size": 64})
        {'batch_size': 64}
    """
    text = _encoded("agree", value)
    if not is_distributed():
        return json.loads(text)
    device = exchange_device(group)
    head = torch.zeros(WORD_BYTES, dtype=torch.uint8)
    framed = len(text).to_bytes(_LENGTH_BYTES, "little") + text
    head[: min(len(framed), WORD_BYTES)] = _bytes(framed[:WORD_BYTES])
    found = _from_first(head.to(device), group)
    length = int.from_bytes(found[:_LENGTH_BYTES], "little")
    if _LENGTH_BYTES + length <= WORD_BYTES:
        return json.loads(found[_LENGTH_BYTES : _LENGTH_BYTES + length])
    # What the others have to say is of another length; only the first one's counts.
    body = _bytes(text.ljust(length)[:length]).to(device)
    return json.loads(_from_first(body, group))


def same_on_all(value: Any, group: dist.ProcessGroup | None = None) -> bool:
    """Return whether every replica was given the same value, in one small exchange.

    Args:
        value: What JSON holds.
        group: The replicas; all processes when None.

    Raises:
        InputError: JSON does not hold it.

    Example:
        >>> same_on_all([1, "adadamp"])
        True
    """
    text = _encoded("same_on_all", value)
    if not is_distributed():
        return True
    digest = hashlib.sha256(text).digest()
    # Seven bytes each, so that the sign can be turned.
    parts = [int.from_bytes(digest[i : i + 7], "little") for i in (0, 7, 14, 21)]
    numbers = torch.tensor([*parts, *(-part for part in parts)], dtype=torch.int64)
    numbers = numbers.to(exchange_device(group))
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=group)
    most = numbers.tolist()
    return most[:4] == [-least for least in most[4:]]


def barrier(timeout_seconds: float, group: dist.ProcessGroup | None = None) -> None:
    """Wait until every replica has come here.

    Args:
        timeout_seconds: How long at most.
        group: The replicas; all processes when None.

    Raises:
        ReplicaError: Some replica did not come; with gloo it is named.
        InputError: `timeout_seconds` is not positive.

    Example:
        >>> barrier(timeout_seconds=5)
    """
    positive("barrier", "timeout_seconds", timeout_seconds)
    if not is_distributed():
        return
    limit = timedelta(seconds=timeout_seconds)
    try:
        if dist.get_backend(group) == "gloo":
            dist.monitored_barrier(group, timeout=limit, wait_all_ranks=True)
        else:
            work: Any = dist.barrier(group=group, async_op=True)
            work.wait(limit)
    except RuntimeError as error:
        raise ReplicaError(
            f"barrier: not every replica came within {timeout_seconds:g} s: "
            f"{str(error).splitlines()[0]}.",
            "look at what the others said last",
        ) from error


def _encoded(who: str, value: Any) -> bytes:
    try:
        return json.dumps(value, sort_keys=True).encode()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{who}: `value` must be what JSON holds, got {value!r}: {error}."
        ) from None


def _from_first(values: Tensor, group: dist.ProcessGroup | None) -> bytes:
    dist.broadcast(values, group=group, group_src=0)
    return bytes(values.cpu().numpy())


def _bytes(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)
