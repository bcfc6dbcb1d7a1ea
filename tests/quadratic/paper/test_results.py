"""What is computed, once, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from example_paper import paper

from rightbatch.errors import InputError
from rightbatch.quadratic import Spectrum
from rightbatch.quadratic.dynamics import loss_after
from rightbatch.quadratic.optimizers import Optimizer
from rightbatch.quadratic.paper import results as module
from rightbatch.quadratic.paper.results import PaperSetting, compute_results
from rightbatch.quadratic.pieces import loss_after_pieces

SMALL = PaperSetting(
    spectrum=Spectrum.inverse(5),
    powers=(0.0, 0.5),
    batch_sizes=(4.0, 16.0, 64.0, 256.0),
    targets=(0.03, 0.01),
    num_pieces=(2,),
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"powers": (0.0,)}, "`powers` must be increasing and at least 2"),
        ({"powers": (0.5, 0.0)}, "`powers` must be increasing"),
        ({"batch_sizes": (4, 16, 64)}, "`batch_sizes` must be increasing and at"),
        ({"targets": (0.01, 0.1)}, "`targets` must be decreasing"),
        ({"num_pieces": ()}, "`num_pieces` must be increasing and at least 1"),
    ],
)
def test_lists_that_are_too_short_or_out_of_order_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(SMALL, **change)


def test_the_problem_is_the_one_of_the_paper():
    setting = PaperSetting()
    assert setting.spectrum.curvatures.size == 84
    assert setting.spectrum.num_dims == 10_000
    assert setting.problem(0.5).preconditioner_power == 0.5
    isotropic = setting.problem(0.0, setting.isotropic_noise)
    total = isotropic.weights @ isotropic.noise_variances
    assert total == pytest.approx(setting.spectrum.trace)


def test_options_name_what_is_not_by_default():
    setting = replace(SMALL, target=0.02, spectrum_options="--dims 5 --bins exact")
    assert setting.options("ema", (0.5,), "--search grid") == (
        "simulate --optimizer ema --search grid --power 0.5 "
        "--batch-sizes 4,16,64,256 --dims 5 --bins exact --target 0.02"
    )


def test_nothing_is_computed_twice(monkeypatch):
    asked = []

    def counted(name):
        real = getattr(module, name)

        def call(problem, *args, **more):
            noise = tuple(problem.noise_variances)
            power = problem.preconditioner_power
            told = [a for a in args if isinstance(a, (str, float, int))]
            asked.append((name, power, noise, *told, more.get("max_lr")))
            return real(problem, *args, **more)

        monkeypatch.setattr(module, name, call)

    for name in ("steps_curve", "search_grid", "search_pieces"):
        counted(name)
    shares = []
    found = compute_results(SMALL, backend="numpy", on_progress=shares.append)
    assert len(set(asked)) == len(asked)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert found.grid is not None
    assert found.by_target[0.01].fits["sgd", 0.5] is found.tuned.fits["sgd", 0.5]


def test_every_tuned_cell_reaches_the_target_at_its_step_and_not_before():
    results = paper().results
    target = results.setting.target
    for (_name, power), fit in results.tuned.fits.items():
        problem = results.setting.problem(power)
        for cell in fit.curve.cells[::3]:
            around = [max(cell.steps - 1, 0), cell.steps]
            before, at = loss_after(problem, cell.optimizer, cell.batch_size, around)
            assert at <= target * (1 + 1e-9) < before * (1 + 2e-9)


def test_every_schedule_reaches_the_target():
    results = paper().results
    for key, schedules in results.schedules.items():
        problem = results.setting.problem(key.power)
        for one in schedules:
            sgd = Optimizer(name="sgd", lr=1.0)
            loss = loss_after_pieces(problem, sgd, one.pieces)
            assert loss <= results.setting.target * (1 + 1e-6)


def test_a_larger_batch_never_needs_more_steps_under_a_schedule():
    results = paper().results
    for key in results.schedules:
        assert (np.diff(results.scheduled_steps(key)) <= 0).all()


def test_what_a_smaller_batch_found_serves_a_larger_one():
    results = paper().results
    key = next(iter(results.schedules))
    first, second, *_ = results.schedules[key]
    served = module._handed_on((second, first))
    assert served[1].steps == second.steps
    assert served[1].batch_size == first.batch_size
    assert served[1].lrs == second.lrs
    unreachable = replace(second, steps=None, lrs=(), loss=None)
    assert module._handed_on((unreachable, first))[1] is first
