"""What a cluster file says: components with their prices, jobs, budget or deadline."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightbatch._checks import one_of, positive_array
from rightbatch.cli.sections import Section, read_toml
from rightbatch.errors import InputError

if TYPE_CHECKING:
    from rightbatch.cli.cluster_jobs import KnownJob
    from rightbatch.cluster import Component, Design, PriceCurve

COMPONENTS = ("replicas", "compute", "bandwidth", "memory")
TOP = (
    "title",
    "budget",
    "deadline",
    "currency",
    "prices",
    "aim",
    "num_replicas",
    *COMPONENTS,
    "job",
    "jobs",
)
KEYS = ("price", "low", "high", "choices")
GIGABYTE = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFile:
    """A cluster file, checked.

    Args:
        design: What can be bought for which jobs.
        jobs: Where each job's laws come from.
        budget: Money, or the largest bill.
        deadline: Seconds.
        currency: Name of the money.
        title: Of the file.
        is_shared: True for a cluster that is there, whose replicas are the money.
    """

    design: "Design"
    jobs: "tuple[KnownJob, ...]"
    budget: float | None
    deadline: float | None
    currency: str
    title: str
    is_shared: bool


def read_cluster(path: Path) -> ClusterFile:
    """Return what a cluster file says.

    Args:
        path: The TOML file; tables it names lie beside it.

    Returns:
        The design and what is asked of it.

    Raises:
        InputError: A key is unknown, missing, or of a wrong kind, sign or unit; a table
            cannot be used.
    """
    from rightbatch.cli.cluster_jobs import read_jobs
    from rightbatch.cluster import Design

    top = read_toml(path)
    top.only(TOP)
    tables = [table for name in COMPONENTS if (table := top.table(name)) is not None]
    if "num_replicas" in top and "replicas" in top:
        raise InputError(
            f"{top.where}: give `num_replicas`, which are there, or the table "
            "[replicas], which are bought, not both."
        )
    if not tables:
        return _shared(top, path)
    components = [_component(top.where, table) for table in tables]
    prices = top.get("prices", str, "bought")
    one_of(top.where, "prices", prices, ["bought", "per hour"])
    aim = top.get("aim", str, "latest")
    one_of(top.where, "aim", aim, ["latest", "weighted"])
    budget = top.positive("budget")
    deadline = top.quantity("deadline", "time") if "deadline" in top else None
    if deadline == 0:
        raise InputError(f"{top.where}: `deadline` must be positive, got 0.")
    if budget is None and deadline is None and prices == "bought":
        raise InputError(f"{top.where}: give a `budget` or a `deadline`, got neither.")
    known = read_jobs(top, path.parent)
    return ClusterFile(
        design=Design(
            jobs=tuple(each.job for each in known),
            components=tuple(components),
            num_replicas=top.whole("num_replicas") or 1,
            renting=prices == "per hour",
            aim="weighted" if aim == "weighted" else "latest",
        ),
        jobs=known,
        budget=budget,
        deadline=deadline,
        currency=top.get("currency", str, "money"),
        title=top.get("title", str, path.stem),
        is_shared=False,
    )


def _shared(top: Section, path: Path) -> ClusterFile:
    """Return a cluster that is there: its replicas are the money."""
    from rightbatch.cli.cluster_jobs import read_jobs
    from rightbatch.cluster import Design, LinearPrice, Replicas

    count = top.whole("num_replicas")
    if count is None:
        raise InputError(
            f"{top.where}: names nothing to buy and no `num_replicas` that are there.",
            f"a table [{'], ['.join(COMPONENTS)}]",
        )
    for key in ("budget", "currency", "prices"):
        if key in top:
            raise InputError(f"{top.where}: `{key}` needs something to buy.")
    aim = top.get("aim", str, "latest")
    one_of(top.where, "aim", aim, ["latest", "weighted"])
    known = read_jobs(top, path.parent)
    return ClusterFile(
        design=Design(
            jobs=tuple(each.job for each in known),
            components=(Replicas(price=LinearPrice(price_per_unit=1.0), high=count),),
            aim="weighted" if aim == "weighted" else "latest",
        ),
        jobs=known,
        budget=float(count),
        deadline=top.quantity("deadline", "time") if "deadline" in top else None,
        currency="replicas",
        title=top.get("title", str, path.stem),
        is_shared=True,
    )


def _component(file: str, table: Section) -> "Component":
    name = table.where.rpartition(" ")[2]
    table.need("price")
    try:
        return _memory(table) if name == "memory" else _plain(name, table)
    except InputError as error:
        if str(error).startswith(file):
            raise
        raise InputError(f"{file}: {error}") from None


def _plain(name: str, table: Section) -> "Component":
    from rightbatch.cluster import Bandwidth, Compute, Replicas

    if name == "replicas":
        table.only(KEYS)
        return Replicas(price=_price(table), **_bounds(table))
    table.only((*KEYS, "per_replica"))
    # A faster replica is paid for at every one; a switch serves them all.
    per_replica: bool = table.get("per_replica", bool, name == "compute")
    kind = Compute if name == "compute" else Bandwidth
    return kind(price=_price(table), per_replica=per_replica, **_bounds(table))


def _memory(table: Section) -> "Component":
    from rightbatch.cluster import Memory

    table.only((*KEYS, "per_replica", "per_example", "reserved"))
    in_bytes = "per_example" in table
    per_replica: bool = table.get("per_replica", bool, True)
    if not in_bytes:
        if "reserved" in table:
            raise InputError(
                f"{table.where}: `reserved` needs `per_example`.",
                "without it amounts are examples",
            )
        return Memory(price=_price(table), per_replica=per_replica, **_bounds(table))
    table = Section(table.where, _gigabytes(table))
    table.need("low")
    return Memory(
        price=_price(table),
        per_replica=per_replica,
        per_example=table.positive("per_example"),
        reserved=table.values.get("reserved", 0.0),
        **_bounds(table),
    )


def _gigabytes(table: Section) -> dict[str, Any]:
    """Return the table with sizes in GB: numbers are GB, texts carry their unit."""
    from rightbatch.cli.quantities import quantity

    def size(key: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return quantity(f"{table.where}: `{key}`", "size", value) / GIGABYTE

    found = dict(table.values)
    for key in ("low", "high", "per_example", "reserved"):
        if key in found:
            found[key] = size(key, found[key])
    if isinstance(found.get("choices"), list):
        found["choices"] = [size("choices", each) for each in found["choices"]]
    price = found.get("price")
    if isinstance(price, dict):
        changed: dict[str, Any] = {
            key: [size(key, each) for each in value]
            if key == "amounts" and isinstance(value, list)
            else size(key, value)
            if key in ("step", "included")
            else value
            for key, value in price.items()
        }
        found["price"] = changed
    return found


def _bounds(table: Section) -> dict[str, Any]:
    found: dict[str, Any] = {
        key: table.positive(key) for key in ("low", "high") if key in table
    }
    choices = table.get("choices", list)
    if choices is not None:
        found["choices"] = positive_array(table.where, "choices", choices).tolist()
        # What is sold sets the bounds, unless the file does.
        found = {"low": min(found["choices"])} | found
    return found


def _price(table: Section) -> "PriceCurve":
    from rightbatch.cluster import LinearPrice, SteppedPrice, TablePrice

    given = table.values["price"]
    if not isinstance(given, dict):
        return LinearPrice(price_per_unit=table.positive("price"))
    price = Section(f"{table.where}.price", given)
    if "amounts" in price or "prices" in price:
        price.only(["amounts", "prices", "listed_only"])
        price.need("amounts", "prices")
        try:
            return TablePrice(
                amounts=price.get("amounts", list),
                prices=price.get("prices", list),
                listed_only=price.get("listed_only", bool, False),
            )
        except InputError as error:
            raise InputError(f"{price.where}: {error}") from None
    fixed, included = price.number("fixed", 0.0), price.number("included", 0.0)
    try:
        if "step" in price or "per_step" in price:
            price.only(["step", "per_step", "fixed", "included"])
            price.need("step", "per_step")
            return SteppedPrice(
                step=price.positive("step"),
                price_per_step=price.positive("per_step"),
                fixed_price=fixed,
                included=included,
            )
        price.only(["per_unit", "fixed", "included"])
        price.need("per_unit")
        return LinearPrice(
            price_per_unit=price.positive("per_unit"),
            fixed_price=fixed,
            included=included,
        )
    except InputError as error:
        if str(error).startswith(price.where):
            raise
        raise InputError(f"{price.where}: {error}") from None
