"""The random numbers of every replica: written down, put back, or derived anew."""

import hashlib
import random
from typing import Any

import numpy as np
import torch
from torch import distributed as dist

from rightbatch.collectives import rank
from rightbatch.controller import BatchSizeController
from rightbatch.gradients.replicas import replicas_of


def all_generators(controller: BatchSizeController) -> list[dict[str, Any]]:
    """Return the state of each replica's generators, in order; all of them must ask.

    Args:
        controller: Of the replicas.

    Returns:
        One state per replica: of torch, CUDA, numpy and ``random``.
    """
    own = _generators()
    if controller.num_replicas == 1:
        return [own]
    found: list[Any] = [None] * controller.num_replicas
    group = replicas_of(controller.model).group
    dist.all_gather_object(found, own, group=group)
    return found


def put_back(states: list[dict[str, Any]], controller: BatchSizeController) -> None:
    """Put this replica's generators back to where they were.

    With another number of replicas than wrote them nobody's draws can go on as they
    were. Each replica is then seeded by a digest of the first one's old state, its own
    place and the new number of replicas: repeatable, and different on each.

    Args:
        states: From :func:`all_generators`.
        controller: Of the replicas that go on.
    """
    num, own = controller.num_replicas, 0
    if num > 1:
        own = rank(replicas_of(controller.model).group)
    # First of all: it seeds devices too of which nothing was written.
    _seed(_derived_seed(states[0], own, num))
    if len(states) == num:
        _restore(states[own])


def _generators() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (kind, torch.tensor(np.asarray(keys, dtype=np.int64)), *rest),
        "random": (version, torch.tensor(words), gauss),
    }


def _restore(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, words, gauss = state["random"]
    random.setstate((version, tuple(words.tolist()), gauss))


def _derived_seed(state: dict[str, Any], place: int, num: int) -> int:
    digest = hashlib.sha256(state["torch"].numpy().tobytes())
    digest.update(f"{place} of {num}".encode())
    return int.from_bytes(digest.digest()[:7], "little")


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
