"""The Trainer around the callback: what it logs, what it refuses, and its own again."""

import importlib
import math
import subprocess
import sys

import pytest
import torch
from integrations.example_trainers import (
    Net,
    Rows,
    column,
    followed,
    plain,
    trainer_of,
    weights,
)
from torch.optim import SGD
from transformers import ProgressCallback, TrainerCallback

from rightbatch.controller import Acting, Sensing
from rightbatch.errors import DivergedError, InputError
from rightbatch.integrations.transformers import BatchSizeCallback
from rightbatch.integrations.windows import WindowLength
from rightbatch.policies import (
    AdaDamp,
    Clip,
    Constant,
    GeoDamp,
    NoiseFollowing,
    PadaDamp,
    PolicyContext,
    named_policy,
    padadamp_rate,
)

GROWING = GeoDamp(initial_batch_size=4, delay=1, factor=2)


def test_the_trainer_s_own_reports_have_the_update_s_numbers(tmp_path):
    trainer = trainer_of(tmp_path, logging_strategy="steps", logging_steps=10)
    policy = NoiseFollowing(initial_batch_size=8)
    seen = []

    class Reporter(TrainerCallback):
        def on_log(self, args, state, control, logs, **rest):
            seen.append(dict(logs))

    trainer.add_callback(Reporter)
    follower = followed(trainer, policy, lr_rule="adascale")
    trainer.train()
    told = [one for one in seen if "loss" in one]
    assert len(told) == trainer.state.global_step // 10
    records = follower.records[9::10]
    assert [one["batch/size"] for one in told] == column(records, "batch_size")
    assert [one["optim/lr"] for one in told] == column(records, "lr")
    assert told[0]["noise/scale"] == records[0].noise_scale
    assert told[0]["cost/seconds"] > 0
    rows = [one for one in trainer.state.log_history if "loss" in one]
    assert [one["batch/size"] for one in rows] == column(records, "batch_size")


def test_the_trainer_counts_the_examples_that_it_took(tmp_path):
    trainer = trainer_of(tmp_path, max_steps=20)
    follower = followed(trainer, Constant(batch_size=16))
    metrics = trainer.train().metrics
    expected = follower.records[-1].examples / metrics["train_runtime"]
    assert metrics["train_samples_per_second"] == pytest.approx(expected, rel=1e-3)


def test_any_logger_is_told_of_each_update(tmp_path):
    told = []
    trainer = trainer_of(tmp_path)
    follower = followed(
        trainer, GROWING, log=lambda numbers, step: told.append((step, numbers))
    )
    trainer.train()
    assert [step for step, _ in told] == column(follower.records, "step")
    sizes = [numbers["batch/size"] for _, numbers in told]
    assert sizes == column(follower.records, "batch_size")


def test_the_progress_bar_is_full_at_the_end(tmp_path):
    trainer = trainer_of(tmp_path, disable_tqdm=False)
    followed(trainer, GROWING)
    bars = []

    class Looking(TrainerCallback):
        def on_step_end(self, args, state, control, **rest):
            for one in trainer.callback_handler.callbacks:
                if isinstance(one, ProgressCallback):
                    bars.append((one.training_bar.n, one.training_bar.total))

    trainer.add_callback(Looking)
    trainer.train()
    assert bars[0] == (1, 92)
    assert bars[-1] == (trainer.state.global_step, trainer.state.global_step)


def test_clipping_is_the_trainer_s_and_of_the_whole_gradient(tmp_path):
    model = Net()
    optimizer = SGD(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1)
    trainer = trainer_of(
        tmp_path,
        model,
        max_grad_norm=0.1,
        parts={"optimizers": (optimizer, schedule)},
    )
    followed(trainer, GROWING)
    trainer.train()
    oracle = plain(GROWING, lambda p: SGD(p, lr=0.05), acting=Acting(max_grad_norm=0.1))
    torch.testing.assert_close(weights(model), weights(oracle.model))


def test_evaluating_in_between_changes_nothing(tmp_path):
    found = []
    for settings in ({}, {"eval_strategy": "steps", "eval_steps": 2}):
        trainer = trainer_of(tmp_path, parts={"eval_dataset": Rows(20)}, **settings)
        follower = followed(
            trainer, NoiseFollowing(initial_batch_size=8), sensing=Sensing(every=2)
        )
        trainer.train()
        found.append((column(follower.records, "noise_scale"), weights(trainer.model)))
    torch.testing.assert_close(*found)


def test_the_loss_may_be_evaluated_by_the_trainer_itself(tmp_path):
    trainer = trainer_of(tmp_path, parts={"eval_dataset": Rows(20)}, learning_rate=0.5)
    sensing = Sensing(evaluate=lambda: trainer.evaluate()["eval_loss"])
    follower = followed(trainer, AdaDamp(initial_batch_size=8), sensing=sensing)
    trainer.train()
    losses = column(follower.records, "eval_loss")
    assert follower.records[-1].wish == pytest.approx(8 * losses[0] / losses[-1])


def test_a_trainer_trains_again_and_alone_after_close(tmp_path):
    trainer = trainer_of(tmp_path)
    follower = followed(trainer, GROWING)
    first = trainer.train().global_step
    assert trainer.args.gradient_accumulation_steps == 1
    assert trainer.train().global_step == first
    follower.close()
    assert "training_step" not in vars(trainer)
    assert follower not in trainer.callback_handler.callbacks
    assert trainer.train().global_step == 4 * 23
    followed(trainer, GROWING)
    assert trainer.train().global_step == first


def test_close_may_be_called_again_and_of_a_callback_never_added(tmp_path):
    trainer = trainer_of(tmp_path)
    follower = BatchSizeCallback(trainer, GROWING)
    follower.close()
    follower.close()
    assert "train" not in vars(trainer)
    assert trainer.train().global_step == 4 * 23


def test_methods_replaced_by_the_user_are_there_again_after_close(tmp_path):
    trainer = trainer_of(tmp_path)
    own = trainer.training_step
    trainer.training_step = own
    follower = followed(trainer, GROWING)
    assert trainer.training_step is not own
    follower.close()
    assert trainer.training_step is own


def hooks_of(model):
    kinds = ("forward", "forward_pre", "backward", "backward_pre")
    modules = list(model.modules())
    return sum(len(getattr(one, f"_{kind}_hooks")) for one in modules for kind in kinds)


def test_no_hook_is_left_on_the_model(tmp_path):
    trainer = trainer_of(tmp_path)
    followed(trainer, NoiseFollowing(initial_batch_size=8))
    trainer.train()
    assert hooks_of(trainer.model) == 0


class Failing(TrainerCallback):
    """Ends the third update by an error."""

    def __init__(self, where):
        setattr(self, where, self._fail)

    def _fail(self, args, state, control, **rest):
        if state.global_step == 2:
            raise RuntimeError("on purpose")


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize(
    "where",
    ["on_substep_end", "on_pre_optimizer_step", "on_optimizer_step", "on_step_end"],
)
def test_a_run_that_an_error_ends_leaves_everything_as_it_was(
    tmp_path, where, is_first
):
    trainer = trainer_of(tmp_path)
    others = Failing(where)
    if is_first:
        trainer.add_callback(others)
    followed(
        trainer,
        NoiseFollowing(initial_batch_size=16),
        lr_rule="linear",
        sensing=Sensing(noise="examples", every=1),
        acting=Acting(lr_batch_size=4),
    )
    if not is_first:
        trainer.add_callback(others)
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer.train()
    assert hooks_of(trainer.model) == 0
    assert type(trainer.args.gradient_accumulation_steps) is int
    assert trainer.args.gradient_accumulation_steps == 1
    assert trainer.optimizer.param_groups[0]["lr"] == 0.05


def test_settings_that_another_run_left_in_an_update_are_put_back(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.args.gradient_accumulation_steps = WindowLength(3)
    BatchSizeCallback(trainer, GROWING).close()
    assert type(trainer.args.gradient_accumulation_steps) is int
    assert trainer.train().global_step == 4 * 23


class Interrupting(TrainerCallback):
    """Stops the run within an update."""

    def on_substep_end(self, args, state, control, **rest):
        raise KeyboardInterrupt


def test_a_run_broken_off_within_an_update_may_be_begun_again(tmp_path):
    trainer = trainer_of(tmp_path)
    follower = followed(trainer, Constant(batch_size=12))
    trainer.add_callback(Interrupting)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.remove_callback(Interrupting)
    trainer.train()
    assert column(follower.records, "batch_size")[:2] == [12, 12]
    assert follower.records[-1].examples == 4 * 90


class Stopping(TrainerCallback):
    """Ends each epoch after two updates."""

    def on_step_end(self, args, state, control, **rest):
        control.should_epoch_stop = state.global_step % 2 == 0


def test_an_epoch_may_be_ended_early(tmp_path):
    trainer = trainer_of(tmp_path)
    follower = followed(trainer, Constant(batch_size=12))
    trainer.add_callback(Stopping)
    trainer.train()
    assert column(follower.records, "batch_size") == [12] * 8


class Broken(Net):
    """Has no loss any more after a while."""

    calls = 0

    def forward(self, x, labels=None):
        self.calls += 1
        found = super().forward(x, labels)
        found["loss"] = found["loss"] * (math.nan if self.calls > 10 else 1.0)
        return found


def test_a_lost_run_is_stopped_unless_nobody_guards_it(tmp_path):
    trainer = trainer_of(tmp_path, Broken())
    followed(trainer, Constant(batch_size=8))
    with pytest.raises(DivergedError, match="lost at update 6: a loss of nan"):
        trainer.train()
    trainer = trainer_of(tmp_path, Broken())
    followed(trainer, Constant(batch_size=8), acting=Acting(guard=None))
    assert trainer.train().global_step == 48


@pytest.mark.parametrize(
    ("name", "limits", "meant"),
    [
        (
            "geodamp:delay=1,factor=2",
            {},
            Clip(GeoDamp(initial_batch_size=4, delay=1, factor=2), low=1, high=90),
        ),
        (
            # Which ends at the largest batch after the epochs that the Trainer has.
            "padadamp",
            {"num_train_epochs": 3},
            Clip(
                PadaDamp(
                    initial_batch_size=4,
                    rate=padadamp_rate(
                        initial_batch_size=4,
                        max_batch_size=90,
                        epochs=3,
                        dataset_size=90,
                    ),
                ),
                low=1,
                high=90,
            ),
        ),
        (
            "seesaw:schedule=cosine",
            {"max_steps": 30},
            named_policy(
                "seesaw:schedule=cosine",
                initial_batch_size=4,
                context=PolicyContext(dataset_size=90, total_steps=30),
            ),
        ),
    ],
)
def test_a_policy_may_be_named(tmp_path, name, limits, meant):
    sizes = []
    for policy in (name, meant):
        trainer = trainer_of(tmp_path, **limits)
        follower = followed(trainer, policy)
        trainer.train()
        sizes.append(column(follower.records, "batch_size"))
    assert sizes[0] == sizes[1]
    assert sizes[0][0] == 4
    assert max(sizes[0]) > 8


# What is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"gradient_accumulation_steps": 2}, "`gradient_accumulation_steps` must be 1"),
        (
            {"accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 1}}},
            "`accelerator_config.gradient_accumulation_kwargs` must not be given",
        ),
        ({"auto_find_batch_size": True}, "changes the micro-batch while training"),
    ],
)
def test_settings_that_accumulate_otherwise_are_refused(tmp_path, settings, match):
    trainer = trainer_of(tmp_path, **settings)
    with pytest.raises(InputError, match=match):
        BatchSizeCallback(trainer, GROWING)


def test_an_optimizer_that_steps_in_the_backward_pass_is_refused(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.args.optim = "galore_adamw_layerwise"
    with pytest.raises(InputError, match="steps in the backward pass"):
        BatchSizeCallback(trainer, GROWING)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("is_deepspeed_enabled", "DeepSpeed fixes the micro-batches of an update"),
        ("is_fsdp_enabled", "the Trainer's FSDP is not followed"),
    ],
)
def test_engines_that_make_the_updates_themselves_are_refused(tmp_path, name, match):
    trainer = trainer_of(tmp_path)
    setattr(trainer, name, True)
    with pytest.raises(InputError, match=match):
        BatchSizeCallback(trainer, GROWING)


def test_one_process_with_several_gpus_is_refused(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.args._n_gpu = 2
    with pytest.raises(InputError, match="one process has 2 GPUs"):
        BatchSizeCallback(trainer, GROWING)


def test_replicas_that_share_an_example_are_refused(tmp_path, monkeypatch):
    trainer = trainer_of(tmp_path)

    class Parallel:
        tp_size, cp_size, sp_size = 2, 1, 1

    monkeypatch.setattr(type(trainer.accelerator), "parallelism_config", Parallel)
    with pytest.raises(InputError, match="replicas that share an example"):
        BatchSizeCallback(trainer, GROWING)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda trainer: setattr(
                trainer.args.accelerator_config, "even_batches", False
            ),
            "`accelerator_config.even_batches` must be true",
        ),
        (
            lambda trainer: (
                setattr(trainer, "model_accepts_loss_kwargs", True),
                setattr(trainer.args, "average_tokens_across_devices", False),
            ),
            "`average_tokens_across_devices` must be true",
        ),
    ],
)
def test_replicas_with_different_shares_are_refused(
    tmp_path, monkeypatch, change, match
):
    trainer = trainer_of(tmp_path)
    change(trainer)
    monkeypatch.setattr(type(trainer.args), "world_size", 2)
    with pytest.raises(InputError, match=match):
        BatchSizeCallback(trainer, GROWING)


def test_what_is_no_trainer_is_refused():
    with pytest.raises(InputError, match="must be a transformers.Trainer"):
        BatchSizeCallback(object(), GROWING)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"policy": 32}, "`policy` must have needs, init and update"),
        ({"policy": "geodmap"}, "there is no policy 'geodmap'.*geodamp"),
        ({"policy": "geodamp:rate=2"}, "geodamp has no parameter 'rate'"),
        ({"lr_rule": None}, "`lr_rule` must be the name of a rule, got None.*none"),
        ({"lr_rule": "linaer"}, "`lr_rule` cannot be 'linaer'.*linear"),
        ({"sensing": "examples"}, r"`sensing` must be Sensing\(...\), got 'examples'"),
        ({"acting": "linear"}, r"`acting` must be Acting\(...\), got 'linear'"),
        ({"log": "run.csv"}, "`log` must be callable, got 'run.csv'.*CsvLog"),
    ],
)
def test_what_cannot_be_followed_is_refused_at_once(tmp_path, given, match):
    trainer = trainer_of(tmp_path)
    with pytest.raises(InputError, match=match):
        BatchSizeCallback(trainer, **({"policy": GROWING} | given))
    assert "train" not in vars(trainer)


@pytest.mark.parametrize("is_added", [True, False])
def test_a_second_callback_is_refused(tmp_path, is_added):
    trainer = trainer_of(tmp_path)
    first = BatchSizeCallback(trainer, GROWING)
    if is_added:
        trainer.add_callback(first)
    with pytest.raises(InputError, match="must have no other BatchSizeCallback"):
        BatchSizeCallback(trainer, GROWING)


def test_a_callback_that_was_not_added_is_missed(tmp_path):
    trainer = trainer_of(tmp_path)
    BatchSizeCallback(trainer, GROWING)
    with pytest.raises(InputError, match="the Trainer trains without it"):
        trainer.train()


def test_settings_changed_before_training_are_looked_at_again(tmp_path):
    trainer = trainer_of(tmp_path)
    followed(trainer, GROWING)
    trainer.args.gradient_accumulation_steps = 4
    with pytest.raises(InputError, match="`gradient_accumulation_steps` must be 1"):
        trainer.train()


def test_a_scheduler_of_the_controller_s_is_refused(tmp_path):
    trainer = trainer_of(tmp_path)
    followed(trainer, GROWING, acting=Acting(max_grad_norm=1.0))
    with pytest.raises(InputError, match="is the framework's here"):
        trainer.train()


def test_without_transformers_the_import_says_what_to_install(monkeypatch):
    name = "rightbatch.integrations.transformers"
    for module in [one for one in sys.modules if one.startswith(name)]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'rightbatch\[hf\]'"):
        importlib.import_module(name)


@pytest.mark.slow
def test_rightbatch_alone_does_not_load_transformers():
    code = "import rightbatch, sys; print('transformers' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"
