"""What a classifier and a regressor have in common: parameters, training, outputs."""

import copy
import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from torch.utils.data import default_collate

from rightbatch.controller import UpdateRecord
from rightbatch.controller.mean_loss import evaluating
from rightbatch.errors import DivergedError, InputError
from rightbatch.integrations.sklearn.course import Settled, Trained, own_generators
from rightbatch.integrations.sklearn.examples import (
    Examples,
    inputs_of,
    is_dataset,
    of_arrays,
    of_dataset,
    targets_of,
)
from rightbatch.integrations.sklearn.gradient_source import LARGEST_PASS
from rightbatch.integrations.sklearn.losses import (
    ExampleLoss,
    as_outputs,
    criterion_of,
    placed,
)
from rightbatch.integrations.sklearn.making import dtype_of, module_of, policy_of
from rightbatch.integrations.sklearn.parameters import PassedOn
from rightbatch.integrations.sklearn.targets import Targets
from rightbatch.integrations.sklearn.training import Training
from rightbatch.policies import PolicyContext
from rightbatch.sampler.nesting import moved

DEFAULT_POLICY = "noise-following"
_SHARED = ("client", "log")


class AdaptiveEstimator(PassedOn):
    """The part of both estimators that does not know what is predicted.

    Args:
        module: Class of an ``nn.Module`` or a function that returns one, called with
            the parameters ``module__x``; or a module, which is copied; a network of one
            hidden layer of 100 units (``module__hidden``) when None. It is trained in
            the mode it is in, and predicts in evaluation mode.
        criterion: A loss of torch, its class (made with ``criterion__x``) or a
            function of outputs and targets; the usual one when None.
        optimizer: A class of ``torch.optim`` or its name; ``optimizer__x`` goes to it.
        lr: Learning rate, chosen for `initial_batch_size`.
        policy: A policy of :mod:`rightbatch.policies`, or its name and parameters as a
            text; ``noise-following`` when None.
        lr_rule: How the rate follows the batch; see :class:`BatchSizeController`.
        noise: Where the gradient noise is read, for policies and rules that look at it;
            see :class:`Sensing`. Workers of a client send no gradients of single
            examples: with one it is "units" or "off".
        initial_batch_size: Examples of the first update, for a policy that is a text;
            the whole data where there are fewer.
        max_batch_size: Examples of an update at most; all of the data when None.
        micro_batch_size: Examples of the least forward pass: batches are multiples of
            it. When None, what the policy begins with: `initial_batch_size` for a text.
        max_epochs: Passes over the data at most.
        tol: An epoch that improves the loss, or the validation score, by less is none;
            None to train for `max_epochs` always.
        n_iter_no_change: More such epochs in a row end the fit.
        early_stopping: Hold part of the data out, score it after each epoch, and keep
            the weights that scored best.
        validation_fraction: That part.
        random_state: Seed of weights, order, split and random layers.
        warm_start: ``fit`` goes on from the last one.
        verbose: Print a line after each epoch.
        device: Where the module is trained.
        dtype: "float32" or "float64", or numpy's or torch's of that name: of the
            module, and of floating inputs.
        log: Called with numbers of each update and its step, as in
            :mod:`rightbatch.integrations.logging`.
        client: A ``dask.distributed.Client`` whose workers compute the gradients.
        workers: How many share a batch: ``rightbatch.integrations.dask.Workers``.
        module__x: And ``optimizer__x``, ``criterion__x``: passed on, under the name x.

    Raises:
        InputError: A parameter is not known.
    """

    def __init__(
        self,
        module: Any = None,
        *,
        criterion: Any = None,
        optimizer: Any = "adam",
        lr: float = 0.001,
        policy: Any = None,
        lr_rule: str = "auto",
        noise: str = "auto",
        initial_batch_size: int = 32,
        max_batch_size: int | None = None,
        micro_batch_size: int | None = None,
        max_epochs: int = 100,
        tol: float | None = 1e-4,
        n_iter_no_change: int = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: bool = False,
        device: Any = "cpu",
        dtype: Any = "float32",
        log: Callable[[dict[str, float], int], Any] | None = None,
        client: Any = None,
        workers: Any = None,
        **module__x: Any,
    ) -> None:
        self.module = module
        self.criterion = criterion
        self.optimizer = optimizer
        self.lr = lr
        self.policy = policy
        self.lr_rule = lr_rule
        self.noise = noise
        self.initial_batch_size = initial_batch_size
        self.max_batch_size = max_batch_size
        self.micro_batch_size = micro_batch_size
        self.max_epochs = max_epochs
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.device = device
        self.dtype = dtype
        self.log = log
        self.client = client
        self.workers = workers
        self._take(module__x)

    # What was learnt --------------------------------------------------------------

    @property
    def module_(self) -> nn.Module:
        """The module that was trained."""
        return self._learnt().module

    @property
    def history_(self) -> list[UpdateRecord]:
        """The record of every update since the first."""
        return self._learnt().records

    @property
    def batch_size_curve_(self) -> NDArray[np.int64]:
        """The batch size of every update."""
        return np.array([record.batch_size for record in self.history_], dtype=np.int64)

    @property
    def loss_curve_(self) -> list[float]:
        """The mean training loss of each epoch."""
        return self._learnt().losses

    @property
    def validation_scores_(self) -> list[float]:
        """The score of the examples held out, after each epoch."""
        return self._learnt().scores

    @property
    def n_iter_(self) -> int:
        """Epochs so far."""
        return len(self._learnt().losses)

    @property
    def status_(self) -> str:
        """How training ended: "finished", "stopped" (no gain) or "interrupted"."""
        return self._learnt().status

    def __sklearn_is_fitted__(self) -> bool:
        return "_trained" in vars(self)

    def _learnt(self) -> Trained:
        if "_trained" not in vars(self):
            # What sklearn takes for "there is no such attribute yet".
            raise AttributeError(f"this {type(self).__name__} is not fitted yet")
        return self._trained

    # Training ---------------------------------------------------------------------

    #: Whether the examples held out are to be of all labels in proportion.
    is_stratified = False

    @abstractmethod
    def _arrays(self, x: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        """Return inputs and targets as arrays that were checked."""

    @abstractmethod
    def _targets(self, targets: NDArray[Any], classes: Any) -> Targets:
        """Return what is to be predicted, as the first targets tell."""

    def _fit(
        self, x: Any, y: Any, sample_weight: Any, *, classes: Any = None, part: bool
    ) -> Self:
        """Train from the beginning, or go on.

        Args:
            x: Inputs, or a data set.
            y: Targets; None with a data set.
            sample_weight: One number per row, or None.
            classes: All labels, where they are given.
            part: Go on with a single pass, as ``partial_fit`` does.

        Returns:
            This estimator.
        """
        goes_on = self.__sklearn_is_fitted__() and (part or self.warm_start)
        examples = self._examples(x, y, sample_weight, reset=not goes_on)
        if goes_on:
            trained = self._trained.begun_again()
            seed = trained.seed
        else:
            trained = None
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        training = Training(
            owner=self,
            examples=examples,
            seed=seed,
            score=self._validation_score,
            part=part,
        )
        with own_generators(seed, training.device):
            self._train(training, trained or self._begun(training, classes))
        return self

    def _validation_score(self, trained: Trained, held_out: Examples) -> float:
        outputs = outputs_of(trained.module, held_out)
        if not bool(outputs.isfinite().all()):
            raise DivergedError("the outputs for what is held out are not finite")
        predicted = trained.targets.predicted(outputs, trained.settled.criterion)
        return trained.targets.score(held_out.targets, predicted, held_out.weights)

    def _train(self, training: Training, trained: Trained) -> None:
        try:
            training.run(trained)
        except DivergedError as error:
            raise DivergedError(
                f"{type(self).__name__}: the loss is lost with `lr` "
                f"{trained.settled.lr:g}: "
                f"{error}",
                "take a smaller lr; scale inputs, and the targets of a regression",
            ) from error
        self._trained = trained
        if trained.status == "interrupted":
            warnings.warn(
                f"{type(self).__name__}: interrupted after update "
                f"{len(trained.records)}; the weights so far are kept.",
                stacklevel=4,
            )

    def _begun(self, training: Training, classes: Any) -> Trained:
        examples = training.examples
        targets = self._targets(examples.targets, classes)
        module = module_of(
            self.module,
            self.passed_on("module__"),
            math.prod(examples.input_shape),
            targets.num_outputs,
        )
        loss = criterion_of(
            self.criterion, self.passed_on("criterion__"), targets.default_loss
        )
        dtype = dtype_of(self.dtype)
        context = PolicyContext(
            dataset_size=None if training.part else len(training.split[0]),
            epochs=None if training.part else training.max_epochs,
        )
        policy = policy_of(
            DEFAULT_POLICY if self.policy is None else self.policy,
            training.initial_batch_size,
            self.max_batch_size,
            context,
        )
        return Trained(
            module=module.to(training.device, dtype),
            targets=targets,
            loss=ExampleLoss(
                criterion=placed(loss, training.device, dtype),
                num_classes=targets.num_classes,
            ),
            policy=policy,
            settled=Settled(
                criterion=self.criterion,
                optimizer=self.optimizer,
                optimizer_parameters=self.passed_on("optimizer__"),
                lr=self.lr,
                lr_rule=self.lr_rule,
                dtype=dtype,
            ),
            seed=training.seed,
        )

    def _dtype(self, reset: bool) -> torch.dtype:
        """Return the type of floating numbers: that of a fit which goes on."""
        return dtype_of(self.dtype) if reset else self._trained.settled.dtype

    def _numpy_dtype(self, reset: bool) -> str:
        return str(self._dtype(reset)).removeprefix("torch.")

    def _examples(self, x: Any, y: Any, sample_weight: Any, *, reset: bool) -> Examples:
        if not is_dataset(x):
            x, y = self._arrays(x, y, reset=reset)
            return of_arrays(x, y, sample_weight, self._dtype(reset))
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if value is not None:
                raise InputError(
                    f"fit: `{name}` goes with arrays, not with a data set.",
                    "its items are (x, y) or (x, y, weight)",
                )
        examples = of_dataset(x, self._dtype(reset))
        if not reset:
            self._check_width(examples)
        else:
            for name in ("n_features_in_", "feature_names_in_"):
                vars(self).pop(name, None)
            if examples.input_shape:
                self.n_features_in_ = examples.input_shape[0]
        return examples

    def _check_width(self, examples: Examples) -> None:
        """Refuse items that are not as wide as those learnt from, as arrays are.

        Raises:
            InputError: They are not.
        """
        shape = examples.input_shape if len(examples) else ()
        known = vars(self).get("n_features_in_")
        if len(shape) == 1 and known is not None and shape[0] != known:
            raise InputError(
                f"{type(self).__name__}: an item must have {known} features, as those "
                f"learnt from, got {shape[0]}."
            )

    # Outputs ----------------------------------------------------------------------

    def _outputs(self, x: Any) -> Tensor:
        """Return the module's outputs for inputs, on the CPU."""
        check_is_fitted(self)
        if is_dataset(x):
            examples = inputs_of(x, self._dtype(reset=False))
            self._check_width(examples)
        else:
            array: Any = validate_data(
                self,
                x,
                reset=False,
                dtype=self._numpy_dtype(reset=False),
                ensure_all_finite=True,
                allow_nd=True,
            )
            examples = of_arrays(
                array, np.zeros(len(array)), None, self._dtype(reset=False)
            )
        return outputs_of(self.module_, examples)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return what is predicted for each row, or each item of a data set.

        Args:
            X: Array of inputs, or a data set whose items are, or begin with, one.

        Returns:
            Labels or numbers, shape (n, ...) as y had.
        """
        outputs = self._outputs(X)
        learnt = self._trained
        return learnt.targets.predicted(outputs, learnt.settled.criterion)

    def _with_targets(self, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
        """Return targets and weights: those of the data set where none are given."""
        if not is_dataset(x) or y is not None:
            return y, sample_weight
        check_is_fitted(self)
        return targets_of(x)

    # Copies -----------------------------------------------------------------------

    def __sklearn_clone__(self) -> Self:
        twin = copy.copy(self)
        for name in _SHARED:
            setattr(twin, name, None)
        clone: Any = super(AdaptiveEstimator, twin).__sklearn_clone__()
        return self._sharing(clone)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        state = {k: v for k, v in vars(self).items() if k not in _SHARED}
        vars(twin).update(copy.deepcopy(state, memo))
        return self._sharing(twin)

    def _sharing(self, twin: Any) -> Any:
        # A connection to a cluster, or to a logger, is not made twice.
        for name in _SHARED:
            setattr(twin, name, getattr(self, name))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {**state, "client": None}


def outputs_of(module: nn.Module, examples: Examples) -> Tensor:
    """Return a module's outputs in evaluation mode, in chunks, on the CPU.

    Args:
        module: Its modes are put back.
        examples: Whose inputs go through it.

    Raises:
        InputError: It does not return a tensor.
    """
    place = next(module.parameters()).device
    parts: list[Tensor] = []
    with evaluating(module):
        for batch in _chunks(examples):
            parts.append(as_outputs(module(moved(batch, place))).cpu())
    return torch.cat(parts)


def _chunks(examples: Examples) -> Iterator[Any]:
    if examples.items is None:
        yield from examples.inputs.split(LARGEST_PASS)
        return
    for items in np.array_split(examples.items, -(-len(examples) // LARGEST_PASS) or 1):
        yield default_collate([examples.inputs[int(item)] for item in items])
