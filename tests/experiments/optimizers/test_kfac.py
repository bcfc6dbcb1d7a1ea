import copy
import gc
import math
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional

from rightbatch.errors import InputError, WorkloadError
from rightbatch.experiments.optimizers.factors import (
    MAX_SIDE,
    damped_inverses,
    input_factor,
    layers_of,
    output_factor,
)
from rightbatch.experiments.optimizers.kfac import Kfac, KfacFor, KfacSettings


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 2, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(18, 4),
        nn.Tanh(),
        nn.Linear(4, 3, bias=False),
    ).double()


def images(count: int = 6) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 1, 4, 4, dtype=torch.float64)


def drawn_labels(model: nn.Module, batch: torch.Tensor, seed: int) -> torch.Tensor:
    with torch.no_grad():
        chances = model(batch).softmax(1)
    torch.manual_seed(seed)
    return torch.multinomial(chances, 1).squeeze(1)


def one_update(
    model: nn.Module, kfac: Kfac, batch: torch.Tensor, seed: int = 2
) -> None:
    kfac.zero_grad()
    torch.manual_seed(seed)
    functional.cross_entropy(model(batch), torch.arange(len(batch)) % 3).backward()
    kfac.step()


def weight_rows(layer: nn.Module, of_gradient: bool = False) -> torch.Tensor:
    parts = [layer.weight.grad if of_gradient else layer.weight]
    if layer.bias is not None:
        parts.append(layer.bias.grad if of_gradient else layer.bias)
    return torch.cat([p.detach().reshape(len(p), -1) for p in parts], 1)


def test_factors_of_a_linear_layer_give_the_sum_of_kronecker_products_per_example() -> (
    None
):
    # With one example the approximation is exact: g g' x a a' is the square of the
    # example's gradient, which autograd gives.
    model, batch = network(), images(1)
    kfac = Kfac(model, 0.1)
    labels = drawn_labels(model, batch, seed=2)
    functional.cross_entropy(model(batch), labels).backward()
    layer = model[3]
    gradient = weight_rows(layer, of_gradient=True).reshape(-1)
    kfac.state.clear()
    one_update(model, kfac, batch)
    state = kfac.state[layer.weight]
    product = torch.kron(state["output_factor"], state["input_factor"])
    torch.testing.assert_close(product, torch.outer(gradient, gradient))


def test_factors_are_means_over_examples_of_what_each_example_gives_alone() -> None:
    model, batch = network(), images()
    kfac = Kfac(model, 0.1)
    before = copy.deepcopy(model.state_dict())
    labels = drawn_labels(model, batch, seed=2)
    one_update(model, kfac, batch)
    model.load_state_dict(before)
    kfac.remove_hooks()
    for place in (3, 5):
        layer, seen = model[place], {}
        layer.register_forward_hook(
            lambda _, given, output, seen=seen: seen.update(a=given[0], out=output)
        )
        a_sum, g_sum = 0.0, 0.0
        for row, label in zip(batch, labels, strict=True):
            loss = functional.cross_entropy(model(row[None]), label[None])
            (g,) = torch.autograd.grad(loss, seen["out"])
            a = seen["a"]
            if layer.bias is not None:
                a = torch.cat([a, a.new_ones(1, 1)], 1)
            a_sum, g_sum = a_sum + a.T @ a, g_sum + g.T @ g
        state = kfac.state[layer.weight]
        torch.testing.assert_close(state["input_factor"], a_sum / len(batch))
        torch.testing.assert_close(state["output_factor"], g_sum / len(batch))


def test_factors_of_a_convolution_sum_inputs_over_places_and_average_outputs() -> None:
    layer = nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(1, 0)).double()
    given = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    upper = torch.randn_like(layer(given))
    padded = functional.pad(given, (0, 0, 1, 1))
    a, g, places = 0.0, 0.0, upper[0, 0].numel()
    for example in range(2):
        for row in range(upper.shape[2]):
            for column in range(upper.shape[3]):
                patch = padded[example, :, row : row + 2, 2 * column : 2 * column + 3]
                full = torch.cat([patch.reshape(-1), patch.new_ones(1)])
                out = upper[example, :, row, column]
                a, g = a + torch.outer(full, full), g + torch.outer(out, out)
    torch.testing.assert_close(input_factor(layer, [given], 2), a / 2)
    torch.testing.assert_close(output_factor(layer, [upper]), g / (2 * places))


def test_the_direction_solves_the_damped_dense_matrix_for_the_gradient() -> None:
    model, batch = network(), images()
    settings = KfacSettings(damping=0.02, momentum=0.0, weight_decay=0.1, clip=0)
    kfac = Kfac(model, 0.5, settings)
    before = {layer: weight_rows(layer) for layer in layers_of(model)}
    one_update(model, kfac, batch)
    assert len(before) == 3
    for layer, rows in before.items():
        state = kfac.state[layer.weight]
        a, g = state["input_factor"], state["output_factor"]
        pi = math.sqrt(a.diagonal().mean() / g.diagonal().mean())
        a = a + pi * math.sqrt(0.02) * torch.eye(len(a))
        g = g + math.sqrt(0.02) / pi * torch.eye(len(g))
        gradient = weight_rows(layer, of_gradient=True) + 0.1 * rows
        step = torch.linalg.solve(torch.kron(g, a), gradient.reshape(-1))
        moved = (rows - weight_rows(layer)).reshape(-1)
        torch.testing.assert_close(moved, 0.5 * step)


def test_factors_do_not_depend_on_the_weights_a_loss_is_taken_with() -> None:
    # The engine passes 1/B to the losses of a batch; a sum must give the same factors.
    factors = []
    for scale in (1.0, 6.0):
        model, batch = network(), images()
        kfac = Kfac(model, 0.1)
        torch.manual_seed(2)
        losses = functional.cross_entropy(
            model(batch), torch.zeros(6, dtype=torch.long), reduction="none"
        )
        losses.backward(torch.full_like(losses, scale / 6))
        kfac.step()
        factors.append(kfac.state[model[0].weight]["output_factor"])
    torch.testing.assert_close(*factors)


def test_running_averages_start_as_means_and_then_forget() -> None:
    model = nn.Linear(1, 2, bias=False).double()
    kfac = Kfac(model, 1e-12, KfacSettings(momentum=0))
    expected, values = 0.0, [float(k) for k in range(1, 31)]
    for count, value in enumerate(values, 1):
        batch = torch.full((2, 1), value, dtype=torch.float64)
        kfac.zero_grad()
        functional.cross_entropy(model(batch), torch.tensor([0, 1])).backward()
        kfac.step()
        share = max(1 / count, 0.05)
        expected = (1 - share) * expected + share * value**2
    assert kfac.state[model.weight]["input_factor"].item() == pytest.approx(expected)


def test_momentum_is_that_of_torch_where_no_layer_is_known() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return self.scale * batch

    ours, theirs = Scaled(), Scaled()
    kfac = Kfac(ours, 0.3, KfacSettings(momentum=0.8, weight_decay=0.01))
    sgd = torch.optim.SGD(theirs.parameters(), 0.3, momentum=0.8, weight_decay=0.01)
    for model, optimizer in ((ours, kfac), (theirs, sgd)):
        for step in range(4):
            optimizer.zero_grad()
            batch = torch.arange(3.0, dtype=torch.float64)[None] + step
            functional.cross_entropy(model(batch), torch.tensor([1])).backward()
            optimizer.step()
    torch.testing.assert_close(ours.scale, theirs.scale)


def test_a_clipped_step_has_the_squared_length_asked_for() -> None:
    moved = []
    for clip in (0.0, 1e-4):
        model, batch = network(), images()
        kfac = Kfac(model, 0.5, KfacSettings(momentum=0.0, clip=clip))
        before = {layer: weight_rows(layer) for layer in layers_of(model)}
        one_update(model, kfac, batch)
        moved.append(
            [(b - weight_rows(layer)).reshape(-1) for layer, b in before.items()]
        )
    # lr^2 u'g, with the move lr u.
    gradients = [weight_rows(layer, of_gradient=True).reshape(-1) for layer in before]
    free = sum(0.5 * float(m.dot(g)) for m, g in zip(moved[0], gradients, strict=True))
    assert free > 1e-4
    for whole, short in zip(*moved, strict=True):
        torch.testing.assert_close(short, whole * math.sqrt(1e-4 / free))


def test_a_step_goes_on_from_a_state_dict() -> None:
    def stepped(kfac: Kfac, model: nn.Module) -> torch.Tensor:
        one_update(model, kfac, images(), seed=5)
        return torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    model = network()
    kfac = Kfac(model, 0.1)
    one_update(model, kfac, images())
    other = copy.deepcopy(network())
    other.load_state_dict(model.state_dict())
    resumed = Kfac(other, 0.1)
    resumed.load_state_dict(copy.deepcopy(kfac.state_dict()))
    torch.testing.assert_close(stepped(kfac, model), stepped(resumed, other))


def test_inverses_are_kept_between_inversions() -> None:
    model, batch = network(), images()
    kfac = Kfac(model, 0.01, KfacSettings(inverse_every=3))
    seen = []
    for _ in range(9):
        one_update(model, kfac, batch, seed=len(seen))
        seen.append(kfac.state[model[3].weight]["input_inverse"])
    same = [one is other for one, other in zip(seen, seen[1:], strict=False)]
    assert same == [False, False, False, True, True, False, True, True]


def test_checks_in_evaluation_leave_the_factors_alone() -> None:
    model, batch = network(), images()
    kfac = Kfac(model, 0.1)
    one_update(model, kfac, batch)
    factor = kfac.state[model[3].weight]["input_factor"].clone()
    model.eval()
    model(2 * batch)
    model.train()
    with torch.no_grad():
        model(2 * batch)
    assert torch.equal(kfac.state[model[3].weight]["input_factor"], factor)


def test_logits_that_are_not_finite_leave_the_factors_alone() -> None:
    model, batch = network(), images()
    kfac = Kfac(model, 0.1)
    one_update(model, kfac, batch)
    factor = kfac.state[model[3].weight]["input_factor"].clone()
    model(batch * math.inf)
    assert torch.equal(kfac.state[model[3].weight]["input_factor"], factor)


def test_a_rank_deficient_factor_is_inverted_with_its_damping() -> None:
    torch.manual_seed(0)
    rows = 100 * torch.randn(3, 40)
    a, g = damped_inverses(rows.T @ rows, torch.eye(2), damping=1e-6)
    assert a.isfinite().all()
    assert torch.linalg.eigvalsh(a).min() > 0


def test_layers_it_cannot_factor_follow_their_gradient() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 2, 1, groups=2),
        nn.Conv2d(2, 2, 1, padding="same"),
        nn.Conv2d(2, 2, 1, padding_mode="circular"),
        nn.BatchNorm2d(2),
        nn.Flatten(),
        nn.Linear(2, 2),
    )
    assert layers_of(model) == (model[5],)
    model[5].weight.requires_grad_(False)
    assert layers_of(model) == ()


def test_layers_that_take_too_long_to_invert_follow_their_gradient() -> None:
    model = nn.Sequential(
        nn.Linear(2, MAX_SIDE + 1),
        nn.Linear(MAX_SIDE, 2),
        nn.Conv2d(MAX_SIDE // 8, 2, 3),
        nn.Linear(MAX_SIDE, 2, bias=False),
    )
    assert layers_of(model) == (model[3],)


def test_a_model_and_its_optimizer_are_let_go_of() -> None:
    model = network()
    kfac = Kfac(model, 0.1)
    one_update(model, kfac, images())
    gone = weakref.ref(kfac)
    del model, kfac
    gc.collect()
    assert gone() is None


def test_outputs_of_which_no_labels_can_be_drawn_are_refused() -> None:
    for width, shape in ((1, "(2, 1)"), (3, "(2, 5, 3)")):
        model = nn.Linear(4, width)
        Kfac(model, 0.1)
        batch = torch.ones(2, 4) if width == 1 else torch.ones(2, 5, 4)
        with pytest.raises(
            WorkloadError, match=r"logits, shape \(B, classes\)"
        ) as error:
            model(batch)
        assert shape in str(error.value)


def test_a_loss_that_goes_round_the_model_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    kfac = Kfac(model, 0.1)
    functional.cross_entropy(model[0](torch.ones(1, 2)), torch.tensor([0])).backward()
    with pytest.raises(WorkloadError, match="the loss must call the model"):
        kfac.step()


def test_a_layer_that_is_not_called_itself_follows_its_gradient() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.called, self.borrowed = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return functional.linear(self.called(batch), self.borrowed.weight)

    model = Tied()
    kfac = Kfac(model, 0.5, KfacSettings(momentum=0.0))
    before = model.borrowed.weight.detach().clone()
    functional.cross_entropy(model(torch.ones(1, 2)), torch.tensor([0])).backward()
    kfac.step()
    wanted = before - 0.5 * model.borrowed.weight.grad
    torch.testing.assert_close(model.borrowed.weight.detach(), wanted)
    assert "input_factor" in kfac.state[model.called.weight]


def test_logits_lost_at_the_first_update_are_no_error() -> None:
    model = nn.Linear(1, 2)
    kfac = Kfac(model, 0.5)
    batch = torch.full((1, 1), math.inf)
    functional.cross_entropy(model(batch), torch.tensor([0])).backward()
    kfac.step()
    assert not model.weight.isfinite().all()


def test_a_closure_is_called_once_with_gradients() -> None:
    model, batch = network(), images()
    kfac = Kfac(model, 0.1)

    def closure() -> float:
        kfac.zero_grad()
        loss = functional.cross_entropy(model(batch), torch.arange(6) % 3)
        loss.backward()
        return loss.item()

    assert kfac.step(closure) > 0


def test_parameters_alone_are_refused() -> None:
    with pytest.raises(InputError, match="needs the model, not its parameters alone"):
        KfacFor()([nn.Parameter(torch.zeros(1))], 0.1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"momentum": 1.0}, "`momentum` must be below 1"),
        ({"momentum": -0.1}, "`momentum` must not be negative"),
        ({"damping": 0.0}, "`damping` must be positive"),
        ({"weight_decay": -1.0}, "`weight_decay` must not be negative"),
        ({"clip": -1.0}, "`clip` must not be negative"),
        ({"factor_every": 0}, "`factor_every` must be a whole number"),
        ({"inverse_every": 0}, "`inverse_every` must be a whole number"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        KfacSettings(**settings)


def test_a_rate_that_is_not_positive_is_refused() -> None:
    with pytest.raises(InputError, match="kfac: `lr` must be positive"):
        Kfac(nn.Linear(1, 2), 0.0)
