"""The bracket of the sign noise scale around the known one."""

import pytest
import torch
from curvature.test_alignment import DEVIATION, MEAN, gaussian

from rightbatch.curvature import UnitGradients, sign_noise_scale
from rightbatch.errors import InputError


def test_the_sign_scale_s_bracket_holds_the_truth_on_average():
    truth = float(DEVIATION.sum() / MEAN.abs().sum()) ** 2
    found = [sign_noise_scale(gaussian(64, 4, seed=s)) for s in range(300)]
    signals = [
        torch.tensor([i.low**-0.5 for i in found]),
        torch.tensor([0.0 if i.high is None else i.high**-0.5 for i in found]),
    ]
    plug_in, crossed = (float(s.mean()) for s in signals)
    assert crossed < truth**-0.5 < plug_in
    assert plug_in > 1.05 * truth**-0.5
    many = sign_noise_scale(gaussian(20_000, 4))
    assert (many.low, many.high) == pytest.approx((truth, truth), rel=0.1)
    assert many.low < many.high
    assert str(many).startswith("sign noise scale 6")


def test_a_sign_scale_without_a_signal_has_no_end():
    rows = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    found = sign_noise_scale(UnitGradients(rows=rows, unit_size=1))
    assert found.to_dict() == {"low": None, "high": None}
    assert "unbounded to unbounded" in str(found)


def test_few_units_tell_no_sign_scale():
    with pytest.raises(InputError, match="sign_noise_scale: `units` must be at least"):
        sign_noise_scale(gaussian(3, 1))
