"""Mixed precision stays Lightning's, with and without a scaler."""

import pytest
import torch
from controller.example_training import (
    data,
    loss_of,
)
from integrations.example_lightning import (
    EXAMPLES,
    POLICIES,
    QUIET,
    Net,
    by_step,
    fitted,
    loader_of,
)
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import StepLR

from rightbatch.controller import Acting, Sensing
from rightbatch.integrations.lightning import BatchSizeCallback
from rightbatch.policies import (
    Constant,
)

pytestmark = [pytest.mark.filterwarnings(one) for one in QUIET]


class Scaled(Net):
    """In single precision, as half needs it; the gradient of a batch may be lost."""

    def __init__(self, lost=-1, **settings):
        super().__init__(**settings)
        self.net.float()
        self.lost = lost

    def training_step(self, batch, batch_idx):
        return loss_of(self.net, (batch[0].float(), batch[1]))

    def on_after_backward(self):
        if self.trainer.fit_loop.batch_idx == self.lost:
            next(self.parameters()).grad[0] = torch.inf


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(SGD, {}), (SGD, {"fused": True}), (AdamW, {"fused": True})],
    ids=["sgd", "fused sgd", "fused adamw"],
)
def test_a_step_that_the_scaler_leaves_out_is_said_and_counts_for_no_schedule(
    tmp_path, kind, settings
):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    rates = []

    class Watched(Scaled):
        def lr_scheduler_step(self, scheduler, metric):
            rates.append(scheduler.optimizer.param_groups[0]["lr"])
            super().lr_scheduler_step(scheduler, metric)

    callback = BatchSizeCallback(
        Constant(batch_size=12),
        lr_rule="linear",
        acting=Acting(lr_batch_size=4, counts="steps"),
        sensing=Sensing(noise="off"),
    )
    halving = by_step(StepLR, step_size=1, gamma=0.5)
    module = Watched(lost=4, optimizer=kind, schedule=halving, **settings)
    fitted(
        tmp_path,
        callback,
        module=module,
        loader=loader_of(data(48)),
        max_epochs=1,
        plugins=plugin,
    )
    reasons = [record.reason for record in callback.records]
    assert "no step" in reasons[1]
    assert sum("no step" in reason for reason in reasons) == 1
    # The schedule never sees the rate of the batch.
    assert rates == [0.1, 0.05, 0.025, 0.0125]
    lrs = [record.lr for record in callback.records]
    assert [lrs[0], *lrs[2:]] == pytest.approx([0.3, 0.075, 0.0375])
    assert callback.records[-1].loss > 0


@pytest.mark.parametrize("fused", [False, True])
def test_losses_and_noise_are_those_without_a_scaler(tmp_path, fused):
    found = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        settings = {}
        if scaler is not None:
            plugin = MixedPrecision("16-mixed", "cpu", scaler)
            # Half precision itself is not what is looked at.
            plugin.autocast_context_manager = torch.enable_grad
            settings = {"plugins": plugin}
        callback = BatchSizeCallback(POLICIES["listed"], sensing=EXAMPLES)
        module = Scaled(optimizer=AdamW, fused=fused, lr=0.01)
        fitted(tmp_path, callback, module=module, max_epochs=2, **settings)
        found.append(
            [(one.loss, one.noise_scale or 0.0, one.lr) for one in callback.records]
        )
    torch.testing.assert_close(
        torch.tensor(found[0]), torch.tensor(found[1]), rtol=1e-4, atol=1e-6
    )


def test_bfloat16_is_lightning_s(tmp_path):
    callback = BatchSizeCallback(POLICIES["geodamp"], sensing=EXAMPLES)
    fitted(tmp_path, callback, module=Scaled(), precision="bf16-mixed")
    exact = BatchSizeCallback(POLICIES["geodamp"], sensing=EXAMPLES)
    fitted(tmp_path, exact, module=Scaled())
    for own, one in zip(callback.records, exact.records, strict=True):
        assert own.batch_size == one.batch_size
        assert own.loss == pytest.approx(one.loss, rel=0.05)
