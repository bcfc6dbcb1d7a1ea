"""The rules by name: their formula, where they come from and when they hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.lr_scaling import rules

Family = Literal["sgd", "adaptive", "any"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a rule says of itself.

    Args:
        name: Its name here.
        formula: In symbols, k = B'/B and phi the noise scale.
        source: Where it comes from.
        holds_when: Its condition.
        family: The optimizers it was derived for: plain or normalised updates.
        needs_noise_scale: True when it cannot be used without one.
    """

    name: str
    formula: str
    source: str
    holds_when: str
    family: Family = "any"
    needs_noise_scale: bool = False


def _by_name(*listed: Rule) -> dict[str, Rule]:
    return {rule.name: rule for rule in listed}


LR_RULES: Mapping[str, Rule] = _by_name(
    Rule(
        name="linear",
        formula="lr k",
        source="Goyal et al. (2017)",
        holds_when="SGD, and the larger batch is well below the noise scale",
        family="sgd",
    ),
    Rule(
        name="square_root",
        formula="lr sqrt(k)",
        source="Malladi et al. (2022), the learning rate alone",
        holds_when="normalised updates, and noise dominates the gradient",
        family="adaptive",
    ),
    Rule(
        name="power",
        formula="lr k^a",
        source="a fit to a sweep tuned at each batch size",
        holds_when="inside the batch sizes of the sweep, before the rate turns flat",
    ),
    Rule(
        name="noise_scale",
        formula="lr_max / (1 + phi/B)",
        source="McCandlish et al. (2018)",
        holds_when="SGD, and the old rate was the best one at the old batch size",
        family="sgd",
        needs_noise_scale=True,
    ),
    Rule(
        name="adascale",
        formula="lr r, the schedule r further at each step, r = S(B)/S(k B)",
        source="Johnson et al. (2020)",
        holds_when="SGD, and the noise scale is the one of this part of training",
        family="sgd",
        needs_noise_scale=True,
    ),
    Rule(
        name="adascale_adam",
        formula="lr sqrt(r), the schedule r further at each step",
        source="Johnson et al. (2020), with the square root for normalised updates",
        holds_when="the Adam family; an assumption less studied than AdaScale itself",
        family="adaptive",
        needs_noise_scale=True,
    ),
    Rule(
        name="adam_sde",
        formula="lr sqrt(k), 1-beta times k, eps/sqrt(k)",
        source="Malladi et al. (2022)",
        holds_when="noise dominates the gradient, and k (1 - beta) stays well below 1",
        family="adaptive",
    ),
    Rule(
        name="half_life",
        formula="beta2^k, lr tuned again",
        source="Marek et al. (2025)",
        holds_when="at any k; the learning rate is not transferred, tune it again",
        family="adaptive",
    ),
    Rule(
        name="legw",
        formula="lr sqrt(k), warm-up epochs times k",
        source="You et al. (2019)",
        holds_when="a linear warm-up precedes the schedule, whose epochs are kept",
    ),
)

# What the rules above leave open follows these.
SETTING_RULES: Mapping[str, Rule] = _by_name(
    Rule(
        name="half_life",
        formula="decay^k",
        source="Marek et al. (2025) for beta2, Busbridge et al. (2023) for weights",
        holds_when="at any k; the average forgets over as many examples as before",
    ),
    Rule(
        name="weight_decay",
        formula="tau = B/(lr wd D) kept",
        source="Power Lines, Bergsma et al. (2025)",
        holds_when="weight decay apart from the gradient, as AdamW's",
    ),
    Rule(
        name="same_examples",
        formula="steps/k",
        source="the same examples in larger batches, Goyal et al. (2017)",
        holds_when="the larger batch is well below the noise scale; else it ends early",
    ),
    Rule(
        name="kept",
        formula="unchanged",
        source="asked for",
        holds_when="it was tuned for the new batch size, or is to be",
    ),
)


def find_rule(name: str) -> tuple[Rule, float | None]:
    """Return a rule for the learning rate by its name, and its parameter.

    Args:
        name: A key of `LR_RULES`; hyphens do for underscores; ``power:0.4`` or
            ``power:exponent=0.4`` for a power.

    Returns:
        The rule, and the exponent of a power, else None.

    Raises:
        InputError: There is no such rule, or its parameter is wrong.

    Example:
        >>> rule, exponent = find_rule("power:0.4")
        >>> rule.name, exponent
        ('power', 0.4)
    """
    word, colon, parameter = name.partition(":")
    key = _checks.one_of("transfer", "rule", word.replace("-", "_"), list(LR_RULES))
    if key != "power":
        if colon:
            raise InputError(
                f"transfer: `rule` {key} takes no parameter, got {name!r}."
            )
        return LR_RULES[key], None
    try:
        exponent = float(parameter.removeprefix("exponent="))
    except ValueError:
        raise InputError(
            f"transfer: `rule` power needs its exponent, got {name!r}.",
            "write power:0.4 with the exponent of a tuned sweep",
        ) from None
    return LR_RULES[key], _checks.finite("transfer", "exponent", exponent)


def lr_factor(
    rule: str, from_batch: float, to_batch: float, noise_scale: float | None = None
) -> float:
    """Return what the learning rate is multiplied by when the batch changes.

    A multiplier for any scheduler and any parameter group, cheap enough for every step.
    There and back is 1 for every rule.

    Args:
        rule: A name for :func:`find_rule`.
        from_batch: The batch size that the learning rate is for, in examples.
        to_batch: The new one.
        noise_scale: In examples; needed by `noise_scale` and the AdaScale rules.

    Returns:
        The factor.

    Raises:
        InputError: An argument is out of its range, or the noise scale is missing.

    Example:
        >>> lr_factor("square_root", 256, 1024)
        2.0
        >>> round(lr_factor("adascale", 256, 1024, noise_scale=700), 3)
        2.218
    """
    _checks.positive("transfer", "from_batch", from_batch)
    _checks.positive("transfer", "to_batch", to_batch)
    found, exponent = find_rule(rule)
    ratio = to_batch / from_batch
    if found.needs_noise_scale:
        gain = rules.adascale_gain(
            from_batch, to_batch, _known_noise_scale(found, noise_scale)
        )
        return gain**0.5 if found.name == "adascale_adam" else gain
    if found.name == "half_life":
        return 1.0
    if found.name == "linear":
        return rules.linear_factor(ratio)
    if exponent is not None:
        return rules.power_factor(ratio, exponent)
    return rules.square_root_factor(ratio)


def steps_factor(
    rule: str, from_batch: float, to_batch: float, noise_scale: float | None = None
) -> float:
    """Return how far one new step moves the schedule, in old steps.

    The gain under AdaScale; else the ratio of the batch sizes, which keeps examples.

    Args:
        rule: A name for :func:`find_rule`.
        from_batch: Old batch size, in examples.
        to_batch: New one.
        noise_scale: In examples, for AdaScale.

    Returns:
        Old steps per new step.

    Example:
        >>> steps_factor("linear", 256, 1024)
        4.0
    """
    found, _ = find_rule(rule)
    if found.name.startswith("adascale"):
        known = _known_noise_scale(found, noise_scale)
        return rules.adascale_gain(from_batch, to_batch, known)
    return to_batch / from_batch


def _known_noise_scale(rule: Rule, noise_scale: float | None) -> float:
    if noise_scale is None:
        otherwise = "linear" if rule.family == "sgd" else "square_root"
        raise InputError(
            f"transfer: `rule` {rule.name} needs a noise scale.",
            "give `noise_scale` (the critical batch size of `rightbatch fit` serves), "
            f"or use {otherwise}",
        )
    return _checks.positive("transfer", "noise_scale", noise_scale)
