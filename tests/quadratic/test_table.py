"""Tables of steps: every way of choosing settings, and what a cell says."""

import numpy as np
import pytest

from rightbatch.errors import InputError
from rightbatch.quadratic import Noise, NoisyQuadratic, Spectrum
from rightbatch.quadratic.bounds import bayes_steps, max_likelihood_steps
from rightbatch.quadratic.grids import Grid, search_grid
from rightbatch.quadratic.schedules.piecewise import search_pieces
from rightbatch.quadratic.schedules.shapes import schedule_named
from rightbatch.quadratic.search import search
from rightbatch.quadratic.table import Tuning, steps_table, table_cells

TARGET = 0.02
PROBLEM = NoisyQuadratic(
    spectrum=Spectrum(
        curvatures=np.array([1.0, 0.3, 0.1]), weights=np.array([1, 3, 6])
    ),
    noise=Noise(curvature=1, isotropic=0.1),
)


def first_sgd_step(lr: float, batch_size: float, most: int = 5_000) -> int | None:
    """Return the first step at or below the target, one step after the other."""
    x, seconds = lr * PROBLEM.curvatures, PROBLEM.start.copy()
    for step in range(1, most + 1):
        seconds = (1 - x) ** 2 * seconds + lr**2 * PROBLEM.noise_variances / batch_size
        if PROBLEM.loss(seconds) <= TARGET:
            return step
    return None


def given(*lrs: float, momenta: tuple[float, ...] = (0.0,), **others: object) -> Tuning:
    grid = Grid(lrs=np.array(lrs), momenta=np.array(momenta))
    return Tuning(given=grid, backend="numpy", **others)


def test_cells_come_by_optimizer_then_power_then_batch_size():
    table = steps_table(
        PROBLEM,
        TARGET,
        [256, 16],
        optimizers=["ema", "sgd"],
        powers=[0.5, 0],
        tuning=Tuning(backend="numpy"),
    )
    order = [(cell.name, cell.power, cell.batch_size) for cell in table.cells]
    assert order == [
        (name, power, size)
        for name in ("ema", "sgd")
        for power in (0.5, 0.0)
        for size in (256, 16)
    ]
    assert [cell.batch_size for cell in table.of("sgd", 0.5)] == [256, 16]
    assert table.seconds > 0


def test_a_searched_cell_is_what_the_search_finds():
    (cell,) = steps_table(
        PROBLEM, TARGET, [64], optimizers=["momentum"], tuning=Tuning(backend="numpy")
    ).cells
    (found,) = search(PROBLEM, "momentum", [64], TARGET, backend="numpy")
    assert (cell.steps, cell.optimizer, cell.loss) == (
        found.steps,
        found.optimizer,
        found.loss,
    )


def test_bounds_are_those_of_the_problem_whatever_the_preconditioner():
    table = steps_table(
        PROBLEM,
        TARGET,
        [64],
        optimizers=["sgd"],
        powers=[0, 0.75],
        tuning=Tuning(backend="numpy"),
    )
    for cell in table.cells:
        assert cell.bayes_bound == pytest.approx(bayes_steps(PROBLEM, 64, TARGET))
        assert cell.max_likelihood_bound == pytest.approx(
            max_likelihood_steps(PROBLEM, 64, TARGET)
        )
        assert cell.steps >= cell.bayes_bound


@pytest.mark.parametrize(("lr", "batch_size"), [(0.5, 64), (1.9, 4096), (0.02, 16)])
def test_given_settings_reach_the_target_when_stepping_does(lr, batch_size):
    (cell,) = steps_table(
        PROBLEM, TARGET, [batch_size], optimizers=["sgd"], tuning=given(lr)
    ).cells
    assert cell.steps == first_sgd_step(lr, batch_size)
    assert cell.loss <= TARGET


def test_the_best_of_several_given_settings_is_taken():
    lrs = (0.05, 0.2, 0.8)
    (cell,) = steps_table(
        PROBLEM, TARGET, [256], optimizers=["sgd"], tuning=given(*lrs)
    ).cells
    steps = {lr: first_sgd_step(lr, 256) for lr in lrs}
    best = min((lr for lr in lrs if steps[lr]), key=lambda lr: steps[lr])
    assert (cell.steps, cell.optimizer.lr) == (steps[best], best)


def test_given_momentum_is_for_those_who_have_it():
    table = steps_table(
        PROBLEM,
        TARGET,
        [4096],
        optimizers=["sgd", "momentum", "tail-average"],
        tuning=given(0.5, momenta=(0.5,)),
    )
    sgd, momentum, tail = (cell.optimizer for cell in table.cells)
    assert (sgd.momentum, momentum.momentum, tail.momentum) == (0, 0.5, 0)


def test_beyond_the_edge_is_unreachable_and_says_where_the_edge_is():
    (cell,) = steps_table(
        PROBLEM,
        TARGET,
        [64],
        optimizers=["momentum"],
        tuning=given(4.0, momenta=(0.5,)),
    ).cells
    assert cell.steps is None
    assert cell.optimizer.lr == 4
    assert cell.why == "lr 4 is not below the stability edge, 3"


def test_noise_that_keeps_the_loss_up_is_named():
    (cell,) = steps_table(
        PROBLEM, TARGET, [1], optimizers=["sgd"], tuning=given(1.0)
    ).cells
    assert cell.steps is None
    assert "the loss settles at" in cell.why
    (cell,) = steps_table(
        PROBLEM, TARGET, [1], optimizers=["sgd"], tuning=given(1.0, 0.9)
    ).cells
    assert cell.why == "no given setting reaches the target"
    assert cell.optimizer is None


def test_the_grid_answers_with_its_own_point():
    (cell,) = steps_table(
        PROBLEM,
        TARGET,
        [256],
        optimizers=["sgd"],
        tuning=Tuning(search="grid", backend="numpy"),
    ).cells
    point = search_grid(PROBLEM, "sgd", 256, TARGET, backend="numpy")
    assert (cell.steps, cell.optimizer) == (point.steps, point.optimizer)


def test_more_steps_than_allowed_are_unreachable():
    tuning = Tuning(max_steps=100, backend="numpy")
    (few, many) = steps_table(
        PROBLEM, TARGET, [4096, 4], optimizers=["sgd"], tuning=tuning
    ).cells
    assert few.steps <= 100
    assert many.steps is None
    assert many.optimizer is None
    assert "more than 100" in many.why


def test_a_schedule_is_no_longer_than_a_constant_rate_and_in_the_cell():
    constant, pieces = (
        steps_table(
            PROBLEM,
            TARGET,
            [16],
            optimizers=["sgd"],
            tuning=Tuning(schedule=schedule_named(name), backend="numpy", grow=grow),
        ).cells[0]
        for name, grow in (("constant", False), ("pieces:2", True))
    )
    assert pieces.steps < constant.steps
    (found,) = search_pieces(PROBLEM, "sgd", [16], TARGET, 2, backend="numpy")
    shown = pieces.to_dict()
    assert shown["lrs"] == list(found.lrs)
    assert sum(shown["lengths"]) == pieces.steps
    assert shown["schedule"] == "pieces:2"
    assert shown["growth"]["updates"] < pieces.steps
    assert "schedule" not in constant.to_dict()


def test_a_shape_and_its_growing_batch_use_as_many_examples():
    tuning = Tuning(schedule=schedule_named("linear"), grow=True, backend="numpy")
    (cell,) = steps_table(
        PROBLEM, TARGET, [16], optimizers=["sgd"], tuning=tuning
    ).cells
    assert cell.to_dict()["schedule"] == "linear:0"
    # The last step of all is at rate 0 and may be left out.
    assert cell.growth.examples == pytest.approx(16 * cell.steps, rel=0.05)


def test_settling_comes_no_earlier_than_first_passage():
    tuning = Tuning(settling=True, backend="numpy")
    (cell,) = steps_table(
        PROBLEM, TARGET, [4096], optimizers=["momentum"], tuning=tuning
    ).cells
    assert cell.settling_steps is None or cell.settling_steps >= cell.steps


def test_a_cell_for_a_program_has_null_for_what_the_optimizer_has_not():
    (cell,) = steps_table(
        PROBLEM, TARGET, [64], optimizers=["ema"], tuning=Tuning(backend="numpy")
    ).cells
    shown = cell.to_dict()
    assert list(shown)[:9] == [
        "optimizer", "power", "batch_size", "steps", "lr", "momentum", "ema_decay",
        "max_likelihood_bound", "bayes_bound",
    ]  # fmt: skip
    assert shown["batch_size"] == 64
    assert isinstance(shown["batch_size"], int)
    assert shown["momentum"] is None
    assert 0 < shown["ema_decay"] < 1


def test_a_table_prints_a_line_per_cell():
    table = steps_table(PROBLEM, TARGET, [64, 1], optimizers=["sgd"], tuning=given(1))
    lines = str(table).splitlines()
    assert len(lines) == 3
    assert lines[-1].endswith("unreachable")
    assert table.to_dict()["cells"][1]["steps"] is None


def test_nothing_is_computed_before_all_is_checked():
    with pytest.raises(InputError, match="`optimizers` cannot be 'sdg'"):
        table_cells(PROBLEM, TARGET, [64], optimizers=["sgd", "sdg"])
    with pytest.raises(InputError, match="`target` must be below"):
        table_cells(PROBLEM, 5, [64])
    with pytest.raises(InputError, match="`batch_sizes` must be positive"):
        table_cells(PROBLEM, TARGET, [0])
    with pytest.raises(InputError, match="between 0 and 1"):
        table_cells(PROBLEM, TARGET, [64], powers=[2])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"search": "gird"}, "did you mean grid"),
        ({"tail_fraction": 0}, r"`tail_fraction` must be in \(0, 1\]"),
        ({"max_steps": 0}, "`max_steps` must be a whole number"),
        ({"search": "grid", "given": Grid(lrs=np.ones(1))}, "nothing to the search"),
        ({"grow": True}, "`grow` needs a schedule"),
        (
            {"schedule": schedule_named("cosine"), "settling": True},
            "`settling` is for a constant",
        ),
        (
            {"schedule": schedule_named("cosine"), "given": Grid(lrs=np.ones(1))},
            "`given` is for a constant",
        ),
        (
            {"schedule": schedule_named("cosine"), "search": "grid"},
            "`search` grid is for a constant",
        ),
    ],
)
def test_a_tuning_that_contradicts_itself_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Tuning(**wrong)


def test_what_cannot_serve_a_tail_average_says_so():
    with pytest.raises(InputError, match="pieces:3: cannot serve tail-average"):
        Tuning(schedule=schedule_named("pieces:3")).check("tail-average")
    with pytest.raises(InputError, match="there is none for tail-average"):
        Tuning(search="grid").check("tail-average")
