"""How batches are brought to the device, and whose they are."""

from dataclasses import dataclass

import torch

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.sampler.cuts import JOINS, Dealing, Join
from rightbatch.sampler.turns import own_turn
from rightbatch.sampler.update_batch import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How batches are brought to the device.

    Args:
        device: Where they are put. A ``TensorDataset`` is moved there whole, once;
            other batches go one forward pass at a time.
        num_workers: Processes that load micro-batches ahead; 0 loads in this one. Not
            used for a ``TensorDataset``, which is gathered. A batch size that is no
            multiple of the stream's granule makes them start over at every update.
            Items made by chance (augmented ones) are drawn by the stream's seed and the
            example's position: the same in a run that was resumed, others at the next
            visit and with another seed, as far as they use the generators of torch,
            numpy or Python and not their own. With 0 they are drawn from this process's
            generators, which are whoever resumes' to put back; unless `by_position`.
        by_position: Draw items made by chance by seed and position with 0 processes as
            well, which costs some 20 us an item.
        prefetch_factor: Micro-batches each of them loads ahead.
        pin_memory: Copy through pinned memory, without waiting; for a GPU.
        shuffle: False for the data set's own order.
        largest_pass: Examples of one replica in one forward pass at most; None for as
            many as are asked for.
        join: How micro-batches make a forward pass; see :class:`Layout`.
        rank: Which replica this is; by the process group when None.
        num_replicas: How many there are; by the process group when None.
    """

    device: torch.device | str = "cpu"
    num_workers: int = 0
    by_position: bool = False
    prefetch_factor: int = 2
    pin_memory: bool = False
    shuffle: bool = True
    largest_pass: int | None = None
    join: Join = "doubling"
    rank: int | None = None
    num_replicas: int | None = None

    def check(self, micro_batch_size: int) -> None:
        """Refuse what cannot be.

        Raises:
            InputError: A number is out of range, `join` is none of the three, or
                `largest_pass` is below the micro-batch size.
        """
        who = "Loading"
        _checks.one_of(who, "join", self.join, JOINS)
        _checks.nonnegative(who, "num_workers", self.num_workers)
        _checks.positive_integer(who, "prefetch_factor", self.prefetch_factor)
        if self.largest_pass is None:
            return
        _checks.positive_integer(who, "largest_pass", self.largest_pass)
        if self.largest_pass < micro_batch_size:
            raise InputError(
                f"{who}: `largest_pass` must be at least the micro-batch size "
                f"{micro_batch_size}, got {self.largest_pass}.",
                "take a smaller micro-batch",
            )

    def dealing(self, micro_batch_size: int) -> Dealing:
        """Return which positions of the stream are whose.

        Raises:
            InputError: `rank` and `num_replicas` do not go together.
        """
        if (self.rank is None) != (self.num_replicas is None):
            raise InputError(
                "Loading: `rank` and `num_replicas` must be given together, got "
                f"{self.rank} and {self.num_replicas}."
            )
        own, num = own_turn()
        if self.rank is not None and self.num_replicas is not None:
            own, num = self.rank, self.num_replicas
        _checks.positive_integer("Loading", "num_replicas", num)
        if not 0 <= own < num:
            raise InputError(
                f"Loading: `rank` must be at least 0 and below {num}, got {own}."
            )
        return Dealing(micro_batch_size=micro_batch_size, num_replicas=num, rank=own)

    @property
    def place(self) -> torch.device:
        """Where batches are put, as a model's parameters would say it: with a number.

        ``cuda`` is the GPU in use when it is asked for.
        """
        device = torch.device(self.device)
        if device == torch.device("cuda") and torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps", 0) if device == torch.device("mps") else device

    @property
    def delivery(self) -> Delivery:
        """Where forward passes go."""
        device = self.place
        return Delivery(
            device=None if device.type == "cpu" else device,
            non_blocking=self.pin_memory and device.type == "cuda",
            together=self.rank is None and own_turn()[1] > 1,
        )
