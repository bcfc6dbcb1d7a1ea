"""What is minimised, from where and through how much noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.quadratic import Noise, NoisyQuadratic, Spectrum
from rightbatch.quadratic.problem import check_target, refuse_label_noise

SPECTRUM = Spectrum(curvatures=[4.0, 1.0], weights=[1.0, 3.0])


def test_the_standard_problem_has_noise_like_its_curvature_and_unit_moments():
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(10_000))
    assert (problem.noise_variances == problem.curvatures).all()
    assert (problem.start == 1).all()
    assert problem.initial_loss == pytest.approx(9.787606 / 2, rel=1e-6)


def test_the_loss_is_half_the_curved_moments_over_what_is_irreducible():
    problem = NoisyQuadratic(spectrum=SPECTRUM, irreducible_loss=0.25)
    moments = np.array([0.5, 2.0])
    assert problem.loss(moments) == 0.25 + 0.5 * (4 * 0.5 + 3 * 1 * 2.0)


@given(st.floats(0, 1), st.floats(0.1, 10))
def test_a_preconditioner_multiplies_gradient_and_noise_alike(power, isotropic):
    noise = Noise(curvature=1, isotropic=isotropic)
    plain = NoisyQuadratic(spectrum=SPECTRUM, noise=noise)
    problem = plain.with_power(power)
    factor = plain.curvatures**-power
    np.testing.assert_allclose(problem.preconditioner, factor)
    np.testing.assert_allclose(problem.rates, factor * plain.rates)
    np.testing.assert_allclose(problem.step_noise, factor**2 * plain.step_noise)
    assert problem.initial_loss == plain.initial_loss


def test_newtons_method_sees_one_rate_everywhere():
    problem = NoisyQuadratic(spectrum=SPECTRUM, preconditioner_power=1.0)
    assert problem.rates.tolist() == [1.0, 1.0]


def test_noise_and_start_may_be_given_per_direction():
    problem = NoisyQuadratic(
        spectrum=SPECTRUM, noise=np.array([0.0, 2.0]), initial_second_moments=[1, 0]
    )
    assert problem.noise_variances.tolist() == [0.0, 2.0]
    assert problem.initial_loss == 2.0


def test_a_problem_cannot_be_written_to():
    problem = NoisyQuadratic(spectrum=SPECTRUM)
    with pytest.raises(ValueError, match="read-only"):
        problem.start[0] = 3.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preconditioner_power": -0.1}, "`preconditioner_power` must not be negative"),
        ({"preconditioner_power": 1.5}, "must be between 0 and 1, got 1.5"),
        ({"irreducible_loss": np.nan}, "`irreducible_loss` must be a finite number"),
        ({"label_noise": -1.0}, "`label_noise` must not be negative, got -1.0"),
        ({"noise": np.array([1.0, -2.0])}, "`noise` must not be negative, got -2 at 1"),
        ({"noise": np.ones(3)}, "`noise` must be one value or 2 of them"),
        ({"noise": ["a", "b"]}, "`noise` must be numbers"),
        ({"initial_second_moments": -1.0}, "`initial_second_moments` must not be neg"),
        (
            {"initial_second_moments": [1.0, np.inf]},
            "must not be negative, got inf at 1",
        ),
        ({"initial_second_moments": np.ones(5)}, "must be one value or 2 of them"),
    ],
)
def test_what_is_no_problem_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        NoisyQuadratic(spectrum=SPECTRUM, **settings)


@pytest.mark.parametrize("part", ["curvature", "isotropic"])
def test_a_part_of_the_noise_cannot_be_negative(part):
    with pytest.raises(InputError, match=f"Noise: `{part}` must not be negative"):
        Noise(**{part: -1.0})


def test_a_target_lies_between_the_irreducible_and_the_initial_loss():
    problem = NoisyQuadratic(spectrum=SPECTRUM, irreducible_loss=0.5)
    assert check_target("who", problem, 1.0) == 1.0
    with pytest.raises(InputError, match=r"above the irreducible loss 0\.5, got 0\.5"):
        check_target("who", problem, 0.5)
    with pytest.raises(InputError, match=r"below the loss at the start, 4, got 4"):
        check_target("who", problem, 4.0)
    with pytest.raises(InputError, match="`target` must be a finite number"):
        check_target("who", problem, np.nan)


def test_label_noise_is_refused_where_noise_must_stay():
    refuse_label_noise("who", NoisyQuadratic(spectrum=SPECTRUM))
    with pytest.raises(InputError, match="must have no label noise, got variance 0.5"):
        refuse_label_noise("who", NoisyQuadratic(spectrum=SPECTRUM, label_noise=0.5))
