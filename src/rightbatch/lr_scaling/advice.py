"""Which rule to use, and where the one in use does not hold."""

from collections.abc import Iterator, Mapping

from rightbatch.lr_scaling import rules
from rightbatch.lr_scaling.catalogue import Rule
from rightbatch.lr_scaling.settings import OPTIMIZERS, Settings

# Past this share an average hardly averages any more, and a differential equation no
# longer describes it. Ours: the papers only ask for a small share.
MOST_FORGOTTEN = 0.5
# The papers' sweeps span factors up to a few dozen.
LARGEST_SHOWN_RATIO = 64
_SHORTFALL = 1.1


def choose_rule(
    settings: Settings, from_batch: float, to_batch: float, noise_scale: float | None
) -> tuple[str, str]:
    """Return the rule for the learning rate that suits an optimizer, and why.

    Plain SGD: AdaScale, or linear where the noise scale is not known. Normalised
    updates: AdaScale's square root past the noise scale; below it, or where it is not
    known, Adam's differential equation while its averages stay long, else the square
    root for the learning rate alone.

    Args:
        settings: At the old batch size.
        from_batch: Old batch size, in examples.
        to_batch: New one.
        noise_scale: In examples; None when unknown.

    Returns:
        A name of a rule and a sentence.

    Example:
        >>> choose_rule(Settings(optimizer="sgd", lr=0.1), 32, 256, 700)[0]
        'adascale'
    """
    if settings.family == "sgd":
        if noise_scale is not None:
            return (
                "adascale",
                "for sgd with a known noise scale: linear well below it, flat above",
            )
        return "linear", "for sgd; without a noise scale nothing says where it ends"
    whose = f"for {settings.optimizer}"
    if noise_scale is not None and max(from_batch, to_batch) > noise_scale:
        return (
            "adascale_adam",
            f"{whose} past the noise scale: the square root below it, flat above",
        )
    decays = [one for one in (settings.beta1, settings.beta2) if one]
    ratio = max(to_batch / from_batch, 1.0)
    forgotten = max((ratio * (1 - one) for one in decays), default=1.0)
    if forgotten <= MOST_FORGOTTEN:
        return "adam_sde", f"{whose}: its averages stay long enough to be scaled too"
    short = f"k (1 - beta) would be {forgotten:.3g}" if decays else "no beta was given"
    return "square_root", f"{whose}; {short}, so no beta is scaled"


def find_warnings(
    old: Settings,
    new: Settings,
    rule: Rule,
    *,
    batches: tuple[float, float],
    noise_scale: float | None,
    steps_factor: float,
    applied: Mapping[str, str],
) -> tuple[str, ...]:
    """Return a sentence for each condition of a transfer that does not hold.

    None where the batch size stays.

    Args:
        old: Settings at the old batch size.
        new: Settings at the new one.
        rule: For the learning rate.
        batches: Old and new batch size, in examples.
        noise_scale: In examples; None when unknown.
        steps_factor: Old steps that one new step replaces.
        applied: The rule of every setting.

    Returns:
        Sentences, the weightiest first.
    """
    if batches[0] == batches[1]:
        return ()
    return (
        *_of_the_rule(old, rule, batches),
        *_of_the_noise(rule, batches, noise_scale, steps_factor),
        *_of_the_averages(old, new, rule, applied, batches[1] / batches[0]),
        *_of_the_run(old, new, batches, applied),
    )


def _of_the_rule(
    old: Settings, rule: Rule, batches: tuple[float, float]
) -> Iterator[str]:
    ratio = max(batches[1] / batches[0], batches[0] / batches[1])
    if rule.name == "half_life":
        yield (
            "half_life says nothing of the learning rate: tune it again at "
            f"{batches[1]:g}, starting with the three rates of the check"
        )
    if rule.family not in ("any", old.family):
        better = "adascale or linear" if old.family == "sgd" else "square_root"
        whose = "plain SGD" if rule.family == "sgd" else "normalised updates"
        yield f"{rule.name} is for {whose}, not for {old.optimizer}: use {better}"
    if ratio > LARGEST_SHOWN_RATIO:
        yield (
            f"a factor of {ratio:.4g} is past what any rule has been shown on "
            f"({LARGEST_SHOWN_RATIO}): go in smaller steps and check each"
        )


def _of_the_noise(
    rule: Rule,
    batches: tuple[float, float],
    noise_scale: float | None,
    steps_factor: float,
) -> Iterator[str]:
    small, large = sorted(batches)
    if noise_scale is None:
        if rule.name == "linear":
            yield (
                "linear holds well below the noise scale, which was not given: give "
                "it, or check the rates"
            )
        return
    gain = rules.adascale_gain(small, large, noise_scale)
    where = f"{large:g} against a noise scale of {noise_scale:g}"
    if rule.name == "linear" and large / small > _SHORTFALL * gain:
        yield (
            f"linear asks for a factor of {large / small:.3g} where the best rate "
            f"grows by {gain:.3g} only ({where}): adascale is safe"
        )
    random_walk = rule.name in ("square_root", "adam_sde", "legw")
    if random_walk and large > noise_scale:
        yield (
            f"{rule.name} needs noise to dominate the gradient, and it does not at "
            f"{where}: adascale_adam flattens there"
        )
    worth = rules.adascale_gain(*batches, noise_scale)
    if steps_factor > _SHORTFALL * worth:
        yield (
            "the same examples may stop short of the same target: a step at "
            f"{batches[1]:g} is worth {worth:.3g} steps at {batches[0]:g}, "
            f"not {steps_factor:.3g}"
        )


def _of_the_averages(
    old: Settings,
    new: Settings,
    rule: Rule,
    applied: Mapping[str, str],
    ratio: float,
) -> Iterator[str]:
    if rule.name == "adam_sde":
        for name in ("beta1", "beta2"):
            decay = getattr(old, name)
            if applied.get(name) == "half_life" and ratio * (1 - decay) >= 1:
                yield (
                    f"1 - k (1 - {name}) would be negative or 0: {name} keeps its "
                    "half-life in examples instead, which is safe at any k; a transfer "
                    "back by adam_sde would not undo it"
                )
        own = [name for name in OPTIMIZERS[old.optimizer] if name != "momentum"]
        missing = [name for name in own if getattr(old, name) is None]
        if missing:
            yield (
                f"adam_sde also changes {', '.join(missing)}, which "
                f"{'was' if len(missing) == 1 else 'were'} not given"
            )
    if _outpaced(new) and not _outpaced(old):
        yield (
            f"beta1 {new.beta1:.4g} is no longer below sqrt(beta2) with beta2 "
            f"{new.beta2:.4g}, where Adam can diverge: lower beta1, or let it keep its "
            "half-life too"
        )


def _outpaced(settings: Settings) -> bool:
    if settings.beta1 is None or settings.beta2 is None:
        return False
    return settings.beta1**2 >= settings.beta2 and settings.beta1 > 0


def _of_the_run(
    old: Settings,
    new: Settings,
    batches: tuple[float, float],
    applied: Mapping[str, str],
) -> Iterator[str]:
    decayed = bool(old.weight_decay) and applied.get("weight_decay") == "weight_decay"
    coupled = old.optimizer in ("adam", "nadam", "rmsprop")
    if decayed and coupled and old.weight_decay != new.weight_decay:
        yield (
            f"weight decay of {old.optimizer} passes through its preconditioner where "
            "it is a penalty on the loss: the rule is for decay apart from the gradient"
        )
    if old.dataset_size is not None and batches[1] > old.dataset_size:
        yield (
            f"a batch of {batches[1]:g} is more than the {old.dataset_size:g} examples "
            "there are"
        )
    if new.total_steps is None:
        return
    if new.total_steps < 1:
        yield "the whole run is less than one step at the new batch size"
    if (new.warmup_steps or 0) > new.total_steps:
        yield (
            f"the warm-up, {new.warmup_steps:g} steps, is longer than the whole run, "
            f"{new.total_steps:g}"
        )
