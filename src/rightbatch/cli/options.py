"""How the command line's words become numbers: lists, choices, paths."""

import math
from collections import Counter

from rightbatch._checks import one_of
from rightbatch.errors import InputError

MOST_NUMBERS = 1000


def parse_numbers(option: str, text: str) -> tuple[float, ...]:
    """Return the numbers of a list.

    Args:
        option: The option they come from, for the error.
        text: ``1,2,4``, or ``4:64:x4`` (geometric), or ``0:1:.25`` (arithmetic); both
            ends included.

    Returns:
        The numbers in the order written.

    Raises:
        InputError: The text is no such list, or a number stands twice.

    Example:
        >>> parse_numbers("--lr", "4:64:x4"), parse_numbers("--lr", "0:1:.25")
        ((4.0, 16.0, 64.0), (0.0, 0.25, 0.5, 0.75, 1.0))
    """
    numbers = tuple(
        number for part in text.split(",") for number in _parse_part(option, part)
    )
    twice = next((one for one, n in Counter(numbers).items() if n > 1), None)
    if twice is not None:
        raise InputError(f"{option}: {twice:g} stands twice in {text!r}.")
    return numbers


def parse_positive(option: str, text: str) -> tuple[float, ...]:
    """Return the numbers of a list, all above zero.

    Args:
        option: The option they come from, for the error.
        text: As for :func:`parse_numbers`.

    Returns:
        The numbers.

    Raises:
        InputError: Not such a list, or a number is not positive.
    """
    numbers = parse_numbers(option, text)
    for number in numbers:
        if number <= 0:
            raise InputError(f"{option}: must be positive, got {number:g}.")
    return numbers


def parse_counts(option: str, text: str) -> tuple[int, ...]:
    """Return the whole numbers of a list, all at least 1, in increasing order.

    Args:
        option: The option they come from, for the error.
        text: As for :func:`parse_numbers`.

    Returns:
        The numbers.

    Raises:
        InputError: Not such a list, or a number is not whole or below 1.

    Example:
        >>> parse_counts("--batch-sizes", "64,8")
        (8, 64)
    """
    numbers = parse_numbers(option, text)
    for number in numbers:
        if number < 1 or not number.is_integer():
            raise InputError(f"{option}: must be whole and >= 1, got {number:g}.")
    return tuple(sorted(int(number) for number in numbers))


def check_device(device: str) -> str:
    """Return the device's name if torch has it here.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        The name.

    Raises:
        InputError: No such kind of device, or none here.
    """
    kind = device.partition(":")[0]
    one_of("--device", "device", kind, ["cpu", "cuda"])
    if kind == "cuda":
        import torch

        count = torch.cuda.device_count()
        number = device.partition(":")[2] or "0"
        if not number.isdecimal() or int(number) >= count:
            raise InputError(
                f"--device: {device} is not here, {count} CUDA devices are.", "use cpu"
            )
    return device


def _parse_part(option: str, part: str) -> list[float]:
    pieces = part.strip().split(":")
    if len(pieces) == 1:
        return [_parse_number(option, pieces[0])]
    if len(pieces) != 3:
        raise InputError(
            f"{option}: cannot read {part!r}.", "write 1,2,4 or 4:64:x4 or 0:1:.25"
        )
    first, last = (_parse_number(option, piece) for piece in pieces[:2])
    if pieces[2].startswith("x"):
        return _geometric(option, part, first, last)
    step = _parse_number(option, pieces[2])
    if step <= 0 or last < first:
        raise InputError(f"{option}: {part!r} never ends.", "write low:high:step")
    num = math.floor((last - first) / step * (1 + 1e-12) + 1e-9) + 1
    if num > MOST_NUMBERS:
        raise InputError(
            f"{option}: {part!r} is {num} numbers, more than {MOST_NUMBERS}.",
            "a geometric list is written low:high:x2",
        )
    return [first + step * i for i in range(num)]


def _geometric(option: str, part: str, first: float, last: float) -> list[float]:
    factor = _parse_number(option, part.split(":")[2].strip()[1:])
    if factor <= 1 or first <= 0 or last < first:
        raise InputError(
            f"{option}: {part!r} never ends.", "write low:high:xN with N above 1"
        )
    num = math.floor(math.log(last / first) / math.log(factor) + 1e-9) + 1
    return [first * factor**i for i in range(num)]


def _parse_number(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"{option}: {text.strip()!r} is not a number.",
            "write 1,2,4 or 4:64:x4 or 0:1:.25",
        )
    return number
