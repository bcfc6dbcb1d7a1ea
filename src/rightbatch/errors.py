"""Every error of rightbatch, and the exit code the command ends with.

.. code-block:: text

    RightbatchError                 1  a failure while running
    ├── InputError (ValueError)     2  an argument, a file or a setting is wrong
    │   ├── TableError              2  a table of runs or times cannot be used
    │   ├── WorkloadError           2  no such workload, or it is not one
    │   ├── DataMissingError        2  a data set's files were not found
    │   └── StoreMismatchError      2  the store belongs to something else
    ├── WorkloadFailedError         1  the workload's own function raised
    ├── FetchError                  1  a file could not be fetched
    ├── StoreError                  1  the store cannot be written or read
    ├── ReplicaError                1  a replica died, raised or never started
    ├── NotReachedError             3  the target was not reached, or nothing fits
    │   └── DivergedError           3  training is lost; the last good state is back
    └── InterruptedRunError       130  Ctrl-C; what was finished is kept

A message says who, which argument, the rule, the value, and then the way out:

    >>> from rightbatch.errors import InputError
    >>> error = InputError("plan: `batch_size` must be positive, got -4.", "try 32")
    >>> print(error)
    plan: `batch_size` must be positive, got -4. (try 32)
"""


class RightbatchError(Exception):
    """The root of the tree; ``exit_code`` is what the command ends with."""

    exit_code = 1

    def __init__(self, message: str, way_out: str = "") -> None:
        super().__init__(f"{message} ({way_out})" if way_out else message)


class InputError(RightbatchError, ValueError):
    """An argument, a file or a setting is wrong."""

    exit_code = 2


class TableError(InputError):
    """A table of runs or times cannot be used; names the row and the column."""


class WorkloadError(InputError):
    """No workload goes by that name, or what was named is not a workload."""


class DataMissingError(InputError):
    """A data set's files were not found; names them and where they were looked for."""


class StoreMismatchError(InputError):
    """The store belongs to another workload or another version of rightbatch."""


class WorkloadFailedError(RightbatchError):
    """The workload's own function raised; carries its error."""


class FetchError(RightbatchError):
    """A file could not be fetched; what was there before is kept."""


class StoreError(RightbatchError):
    """The store cannot be written or read; what it held is kept."""


class ReplicaError(RightbatchError):
    """A replica died, raised or never started; the others end with this."""


class NotReachedError(RightbatchError):
    """The target was not reached, or nothing fits; says what came nearest."""

    exit_code = 3


class DivergedError(NotReachedError):
    """The loss is lost; model and optimizer are back where it was still sane."""


class InterruptedRunError(RightbatchError):
    """Ctrl-C; what was finished is kept."""

    exit_code = 130
