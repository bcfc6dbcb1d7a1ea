"""Gradients of micro-batches and replicas, read where each backward leaves them."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rightbatch.gradients.ledger import Ledger, write_square

Hook = Callable[[Tensor], None]


class LeafHooks:
    """Reads each backward's own gradient of every parameter before it is accumulated.

    A hook on a parameter sees what one backward pass leaves there: before it is added
    to ``.grad`` and before DistributedDataParallel sums it over replicas, in its
    ``no_sync`` too. With FSDP2 the parameter that autograd sees is the gathered one,
    which a module holds only while it runs: it is found there and hooked once.

    Args:
        model: Its modules are looked at where parameters are sharded.
        parameters: In the ledger's order.
        ledger: Where squared norms go.
        sharded: Whether parameters are sharded.
        on_first: Called when the first gradient of an update is made, before it is
            accumulated.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[nn.Parameter],
        ledger: Ledger,
        *,
        sharded: bool,
        on_first: Callable[[], None],
    ) -> None:
        self._model = model
        self._parameters = parameters
        self._ledger = ledger
        self._sharded = sharded
        self._handles: list[RemovableHandle] = []
        self._hooked: set[int] = set()
        # Columns in the order their gradients came in this unit; None between units.
        self._came: list[int] | None = None
        # As many as came, each once, in some unit before: parts would be more of them.
        self._usual = 0
        self._is_first = False
        self._on_first = on_first

    def attach(self) -> None:
        """Put the hooks in place, where they are not."""
        if self._handles:
            return
        if self._sharded:
            self._watch_modules()
            return
        for column, parameter in enumerate(self._parameters):
            if parameter.requires_grad:
                hook = self._hook(column)
                self._handles.append(parameter.register_hook(hook))

    def detach(self) -> None:
        """Take all hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._hooked.clear()

    def begin(self, *, is_first: bool) -> None:
        """Take what comes next as one unit's.

        Args:
            is_first: Whether it is the first of its update.
        """
        self._came = []
        self._is_first = is_first

    def end(self) -> tuple[bool, int | None]:
        """End the unit.

        Returns:
            Whether any gradient came, and the column of a parameter whose gradient
            came in more than one part; None where each came whole.
        """
        came, self._came = self._came or [], None
        if len(came) <= self._usual:
            return bool(came), None
        if len(came) == len(set(came)):
            self._usual = len(came)
            return True, None
        return True, next(column for column in came if came.count(column) > 1)

    def _hook(self, column: int) -> Hook:
        ledger = self._ledger

        def read(gradient: Tensor) -> None:
            if self._came is None:
                return
            if self._is_first:
                self._is_first = False
                self._on_first()
            self._came.append(column)
            write_square(gradient, ledger.cells[column])

        return read

    def _watch_modules(self) -> None:
        columns = {id(p): column for column, p in enumerate(self._parameters)}
        for module in self._model.modules():
            own = {
                name: columns[id(p)]
                for name, p in module.named_parameters(recurse=False)
                if id(p) in columns
            }
            if own:
                watch = self._watcher(own)
                self._handles.append(module.register_forward_pre_hook(watch))

    def _watcher(self, own: dict[str, int]) -> Callable[[nn.Module, object], None]:
        def watch(module: nn.Module, _arguments: object) -> None:
            for name, column in own.items():
                gathered = module.get_parameter(name)
                if id(gathered) not in self._hooked and gathered.requires_grad:
                    self._hooked.add(id(gathered))
                    hook = self._hook(column)
                    self._handles.append(gathered.register_hook(hook))

        return watch
