"""Whatever a model's loss is a mean over, the gradient is that of the whole batch."""

import pytest
import torch
from example_policies import Listed
from integrations.example_texts import (
    COUNT,
    WORDS,
    language_model,
    miscounted_language_model,
    texts,
)
from integrations.example_trainers import Net, Rows, followed, trainer_of
from torch import nn
from torch.nn import functional
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    Trainer,
    TrainerCallback,
)

from rightbatch.controller import Sensing
from rightbatch.errors import InputError
from rightbatch.integrations.transformers.losses import examples_of

SIZES = (8, 4, 16, 12)


def classifier(kind, **settings):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **settings,
    )
    return kind(config)


class Gradients(TrainerCallback):
    """Keeps the gradient, and the weights it was taken at, of each step."""

    def __init__(self):
        self.gradients, self.states = [], []

    def on_pre_optimizer_step(self, args, state, control, model, **rest):
        self.gradients.append([one.grad.clone() for one in model.parameters()])
        state = model.state_dict()
        self.states.append({name: one.clone() for name, one in state.items()})


def assert_exact(folder, model, dataset, loss_of, *, callback=None, **settings):
    """Check each update's gradient against that of its examples in one batch."""
    trainer = trainer_of(
        folder, model, dataset, num_train_epochs=2, learning_rate=0.3, **settings
    )
    follower = followed(trainer, Listed(SIZES), **(callback or {}))
    kept = Gradients()
    trainer.add_callback(kept)
    trainer.train()
    records, place = follower.records, 0
    assert [one.batch_size for one in records] == [8, 4, 10, 12, 8, 2]
    trainer.model.train()
    for record, gradients, state in zip(
        records, kept.gradients, kept.states, strict=True
    ):
        rows = [dataset[(place + k) % COUNT] for k in range(record.batch_size)]
        place += record.batch_size
        model.load_state_dict(state)
        batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        loss = loss_of(model, batch)
        expected = torch.autograd.grad(
            loss, list(model.parameters()), allow_unused=True
        )
        assert record.loss == pytest.approx(float(loss.detach()), rel=1e-5)
        for found, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    return follower


def next_words(model, batch, **settings):
    labels = batch["labels"][:, 1:].reshape(-1)
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logits = logits[:, :-1].reshape(-1, WORDS)
    return functional.cross_entropy(logits, labels, **settings)


def labelled(model, batch):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["labels"]
    if labels.is_floating_point():
        return functional.mse_loss(logits.squeeze(-1), labels.float())
    return functional.cross_entropy(logits.reshape(-1, 3), labels.reshape(-1))


@pytest.mark.parametrize("model", [language_model, miscounted_language_model])
def test_a_language_model_s_gradient_is_the_mean_over_the_tokens(tmp_path, model):
    follower = assert_exact(tmp_path, model(), texts("words"), next_words)
    tokens = sum(int((row["labels"][1:] != -100).sum()) for row in texts("words"))
    assert follower.records[-1].tokens == 2 * tokens


def test_the_trainer_alone_gives_the_same_gradient_at_one_accumulation(tmp_path):
    alone, kept = language_model(), Gradients()
    given = {"num_train_epochs": 1, "learning_rate": 0.3}
    trainer = trainer_of(
        tmp_path, alone, texts("words"), gradient_accumulation_steps=2, **given
    )
    trainer.add_callback(kept)
    trainer.train()
    model, ours = language_model(), Gradients()
    trainer = trainer_of(tmp_path, model, texts("words"), **given)
    followed(trainer, Listed((8,)))
    trainer.add_callback(ours)
    trainer.train()
    assert len(ours.gradients) == len(kept.gradients)
    torch.testing.assert_close(ours.gradients, kept.gradients)


@pytest.mark.parametrize(
    ("kind", "labels", "settings"),
    [
        # These models are told the items of the update, and do not look at them.
        (BertForSequenceClassification, "classes", {"num_labels": 3}),
        (BertForSequenceClassification, "values", {"num_labels": 1}),
        (BertForTokenClassification, "tokens", {"num_labels": 3}),
    ],
)
def test_a_model_that_returns_the_mean_of_a_micro_batch_gets_its_share(
    tmp_path, kind, labels, settings
):
    dataset = [
        row | {"labels": row["labels"].float()} if labels == "values" else row
        for row in texts(labels)
    ]
    assert_exact(tmp_path, classifier(kind, **settings), dataset, labelled)


def test_a_model_of_plain_torch_gets_its_share(tmp_path):
    dataset = Rows(COUNT)

    def loss_of(model, batch):
        return model(**batch)["loss"]

    assert_exact(tmp_path, Net(), dataset, loss_of)


def test_label_smoothing_is_a_mean_over_the_tokens(tmp_path):
    def smoothed(model, batch):
        return next_words(model, batch, label_smoothing=0.1)

    assert_exact(
        tmp_path,
        language_model(),
        texts("words"),
        smoothed,
        label_smoothing_factor=0.1,
    )


def summed(outputs, labels, num_items_in_batch=None):
    logits, labels = (
        outputs.logits[:, :-1].reshape(-1, WORDS),
        labels[:, 1:].reshape(-1),
    )
    return (
        functional.cross_entropy(logits, labels, reduction="sum") / num_items_in_batch
    )


def averaged(outputs, labels, num_items_in_batch=None):
    logits, labels = (
        outputs.logits[:, :-1].reshape(-1, WORDS),
        labels[:, 1:].reshape(-1),
    )
    return functional.cross_entropy(logits, labels)


@pytest.mark.parametrize("function", [summed, averaged])
def test_a_loss_function_of_one_s_own_may_look_at_the_items_or_not(tmp_path, function):
    assert_exact(
        tmp_path,
        language_model(),
        texts("words"),
        next_words,
        parts={"compute_loss_func": function},
    )


class OwnLoss(Trainer):
    """Computes the mean loss itself, and says so."""

    loss_is_scaled_for_ga = False

    def compute_loss(self, model, inputs, return_outputs=False, **rest):
        return next_words(model, inputs)


def test_a_trainer_that_says_its_loss_is_a_mean_is_believed(tmp_path):
    assert_exact(tmp_path, language_model(), texts("words"), next_words, kind=OwnLoss)


class PlainMean(nn.Module):
    """A language model that takes no items, and whose loss is a mean over tokens."""

    def __init__(self):
        super().__init__()
        self.inner = language_model()

    def forward(self, input_ids, attention_mask=None, labels=None):
        outputs = self.inner(input_ids, attention_mask=attention_mask)
        if labels is None:
            return outputs
        batch = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
        }
        return {"loss": next_words(self.inner, batch), "logits": outputs.logits}


def test_tokens_counted_by_the_user_are_what_a_mean_loss_weighs_by(tmp_path):
    def count(batch):
        return int((batch["labels"][:, 1:] != -100).sum())

    assert_exact(
        tmp_path,
        PlainMean(),
        texts("words"),
        next_words,
        callback={"sensing": Sensing(tokens=count)},
    )


def test_the_loss_that_is_reported_is_that_of_the_batch(tmp_path):
    trainer = trainer_of(
        tmp_path, Net(), Rows(COUNT), logging_strategy="steps", logging_steps=1
    )
    follower = followed(trainer, Listed(SIZES))
    trainer.train()
    told = [one["loss"] for one in trainer.state.log_history if "loss" in one]
    expected = [one.loss for one in follower.records]
    assert told == pytest.approx(expected, rel=1e-6)


def test_a_batch_without_a_token_that_counts_is_refused(tmp_path):
    rows = [row | {"labels": row["labels"] * 0 - 100} for row in texts("words")]
    trainer = trainer_of(tmp_path, language_model(), rows)
    followed(trainer, Listed(SIZES))
    with pytest.raises(InputError, match="must hold a token that counts, got none"):
        trainer.train()


class NoLoss(Trainer):
    """Takes a step of its own."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = model(**inputs)["loss"]
        loss.backward()
        return loss.detach()


def test_a_trainer_that_computes_no_loss_is_refused(tmp_path):
    trainer = trainer_of(tmp_path, kind=NoLoss)
    followed(trainer, Listed(SIZES))
    with pytest.raises(InputError, match="training_step must call compute_loss"):
        trainer.train()


class OwnStep(Trainer):
    """Does not tell compute_loss the items, and divides the mean itself."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = self.compute_loss(model, self._prepare_inputs(inputs))
        self.accelerator.backward(loss / self.parts)
        return loss.detach()

    @property
    def parts(self):
        return self.args.gradient_accumulation_steps


class OwnStepAsTold(OwnStep):
    """Divides by the attribute instead of the setting."""

    @property
    def parts(self):
        return self.current_gradient_accumulation_steps


class OwnStepUndivided(OwnStep):
    """Adds up the means."""

    parts = 1


@pytest.mark.parametrize("kind", [OwnStep, OwnStepAsTold])
@pytest.mark.parametrize("model", [language_model, miscounted_language_model, Net])
def test_a_step_of_one_s_own_may_divide_a_mean_itself(tmp_path, kind, model):
    if model is Net:
        dataset, loss_of = Rows(COUNT), lambda model, batch: model(**batch)["loss"]
    else:
        dataset, loss_of = texts("words"), next_words
    assert_exact(tmp_path, model(), dataset, loss_of, kind=kind)


@pytest.mark.parametrize("model", [language_model, Net])
def test_a_step_that_adds_up_means_is_refused(tmp_path, model):
    dataset = Rows(COUNT) if model is Net else texts("words")
    trainer = trainer_of(tmp_path, model(), dataset, kind=OwnStepUndivided)
    followed(trainer, Listed(SIZES))
    with pytest.raises(InputError, match="training_step must divide the loss"):
        trainer.train()


class Positional(Trainer):
    """Gives the items in their place."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        inputs = self._prepare_inputs(inputs)
        loss = self.compute_loss(model, inputs, False, num_items_in_batch)
        self.accelerator.backward(loss)
        return loss.detach()


def test_the_items_may_be_told_without_their_name(tmp_path):
    assert_exact(
        tmp_path,
        miscounted_language_model(),
        texts("words"),
        next_words,
        kind=Positional,
    )


def test_a_batch_without_rows_is_refused():
    with pytest.raises(InputError, match="a batch must hold a tensor"):
        examples_of({"x": torch.tensor(1.0), "y": "text"})
