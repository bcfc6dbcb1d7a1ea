"""Parameters of an estimator that go to what it is made of: ``module__hidden``."""

import inspect
from collections.abc import Mapping
from typing import Any, Self

from sklearn.base import BaseEstimator

from rightbatch import _checks
from rightbatch.errors import InputError

PREFIXES = ("module__", "optimizer__", "criterion__")


class PassedOn(BaseEstimator):
    """An estimator some of whose parameters begin with a prefix and are passed on."""

    def _take(self, given: Mapping[str, Any]) -> None:
        """Keep parameters that the constructor does not name itself.

        Raises:
            InputError: One has none of the prefixes.
        """
        for name, value in given.items():
            if not _is_passed_on(name):
                known = self._get_param_names()
                near = _checks.did_you_mean(name, known)
                raise InputError(
                    f"{type(self).__name__}: there is no parameter {name!r}.",
                    near or f"those passed on begin with {', '.join(PREFIXES)}",
                )
            setattr(self, name, value)

    def passed_on(self, prefix: str) -> dict[str, Any]:
        """Return the parameters with a prefix, without it."""
        return {
            name.removeprefix(prefix): value
            for name, value in vars(self).items()
            if name.startswith(prefix)
        }

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return all parameters by name, those passed on too.

        Args:
            deep: Those of estimators among them as well.
        """
        own: dict[str, Any] = super().get_params(deep=deep)
        passed_on = {k: v for k, v in vars(self).items() if _is_passed_on(k)}
        return own | passed_on

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name.

        Args:
            params: New values.

        Returns:
            This estimator.

        Raises:
            ValueError: There is no parameter of that name.
        """
        self._take({k: v for k, v in params.items() if _is_passed_on(k)})
        super().set_params(**{k: v for k, v in params.items() if not _is_passed_on(k)})
        return self


def _is_passed_on(name: str) -> bool:
    return any(name.startswith(one) and name != one for one in PREFIXES)


def check_fitting(
    who: str, make: Any, given: tuple[Any, ...], parameters: Mapping[str, Any]
) -> None:
    """Find parameters that do not go with what they are passed on to.

    It is not called: what goes wrong inside of it is its own affair.

    Args:
        who: The prefix.
        make: A class or a function.
        given: What it is called with beside them.
        parameters: By name.

    Raises:
        InputError: They do not.
    """
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # some that are written in C do not say
        return
    try:
        signature.bind(*given, **parameters)
    except TypeError as error:
        known = list(signature.parameters)
        unknown = [name for name in parameters if name not in known]
        # What the estimator adds of itself is no concern of whoever reads this.
        own = [f"{who}__{n}" for n in parameters if n not in ("lr", "reduction")]
        raise InputError(
            f"{who}: {getattr(make, '__name__', 'the function')} cannot be made with "
            f"{', '.join(own) or 'nothing'}: {error}.",
            _checks.did_you_mean(unknown[0], known) if unknown else "",
        ) from error
