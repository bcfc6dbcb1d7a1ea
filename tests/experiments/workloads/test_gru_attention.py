"""The translation model against eqs. 14-17 of Perrone et al., written out in numpy."""

import numpy as np
import pytest
import torch

from rightbatch.experiments.workloads.gru_attention import GruAttention
from rightbatch.experiments.workloads.translation import collate
from rightbatch.experiments.workloads.vocabulary import BEGIN, END, PAD

SENTENCES = [([5, 6, 7], [4, 8, END]), ([9], [6, 5, 4, 7, END]), ([4, 4], [END])]


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = GruAttention(vocabulary_size=10, hidden_size=6).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def items():
    return [
        (torch.tensor(source), torch.tensor(target)) for source, target in SENTENCES
    ]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(weights, inputs, state):
    """Cho et al.'s cell: reset r, update z, candidate n, in torch's order."""
    w_ih, w_hh, b_ih, b_hh = weights
    size = len(state)
    a, b = w_ih @ inputs + b_ih, w_hh @ state + b_hh
    r = sigmoid(a[:size] + b[:size])
    z = sigmoid(a[size : 2 * size] + b[size : 2 * size])
    n = np.tanh(a[2 * size :] + r * b[2 * size :])
    return (1 - z) * n + z * state


class ByTheEquations:
    """One sentence, one word at a time; `p` holds the parameters by name."""

    def __init__(self, model):
        self.p = {k: v.detach().numpy() for k, v in model.named_parameters()}

    def cell(self, name, suffix=""):
        ends = (f"weight_ih{suffix}", f"weight_hh{suffix}")
        ends += (f"bias_ih{suffix}", f"bias_hh{suffix}")
        return [self.p[f"{name}.{end}"] for end in ends]

    def encode(self, source):
        x = [self.p["source_embedding.weight"][word] for word in source]
        forward, backward = [np.zeros(6)], [np.zeros(6)]
        for e in x:
            forward.append(gru(self.cell("encoder", "_l0"), e, forward[-1]))
        for e in reversed(x):
            cell = self.cell("encoder", "_l0_reverse")
            backward.append(gru(cell, e, backward[-1]))
        h = [
            np.concatenate([f, b])
            for f, b in zip(forward[1:], reversed(backward[1:]), strict=True)
        ]
        mean = sum(h) / len(h)
        w, b = self.p["first_state.weight"], self.p["first_state.bias"]
        return h, np.tanh(w @ mean + b)

    def step(self, h, before, state):
        e = self.p["target_embedding.weight"][before]
        between = gru(self.cell("gru_1"), e, state)
        scores = []
        for h_i in h:
            wh = self.p["attention_w.weight"] @ h_i + self.p["attention_w.bias"]
            us = self.p["attention_u.weight"] @ between
            scores.append((self.p["attention_v.weight"] @ np.tanh(wh + us))[0])
        alpha = np.exp(scores) / np.exp(scores).sum()
        context = sum(a * h_i for a, h_i in zip(alpha, h, strict=True))
        state = gru(self.cell("gru_2"), context, between)
        deep = self.p["readout.weight"] @ np.concatenate([state, e, context])
        deep = np.tanh(deep + self.p["readout.bias"])
        return state, self.p["output.weight"] @ deep + self.p["output.bias"], alpha

    def logits(self, source, target):
        h, state = self.encode(source)
        found = []
        for before in [BEGIN, *target[:-1]]:
            state, logits, _ = self.step(h, before, state)
            found.append(logits)
        return np.array(found)

    def translate(self, source, longest):
        h, state = self.encode(source)
        found = [BEGIN]
        while len(found) <= longest and found[-1] != END:
            state, logits, _ = self.step(h, found[-1], state)
            found.append(int(logits.argmax()))
        return found[1:]


def test_the_logits_of_a_batch_are_those_of_the_equations(model):
    slow = ByTheEquations(model)
    ((source, lengths, previous, target, sizes),), _ = collate(items())
    logits = model(source, lengths, previous, sizes).detach().numpy()
    # Step by step, the longest translation first.
    order = [1, 0, 2]
    expected, words = [], []
    for step in range(5):
        for row in order:
            source_words, target_words = SENTENCES[row]
            if step < len(target_words):
                expected.append(slow.logits(source_words, target_words)[step])
                words.append(target_words[step])
    assert target.tolist() == words
    assert sizes.tolist() == [3, 2, 2, 1, 1]
    np.testing.assert_allclose(logits, expected, atol=1e-12)


def test_attention_weights_sum_to_one_and_ignore_padding(model):
    source = torch.tensor([[5, 6, 7], [9, PAD, PAD]])
    memory, state = model.encode(source, torch.tensor([3, 1]))
    embedded = model.target_embedding(torch.tensor([BEGIN, BEGIN]))
    weights = model.step(embedded, state, memory)[2]
    np.testing.assert_allclose(weights.sum(1).detach(), 1)
    assert weights[1].tolist() == [1, 0, 0]
    slow = ByTheEquations(model)
    h, first = slow.encode([5, 6, 7])
    np.testing.assert_allclose(weights[0].detach(), slow.step(h, BEGIN, first)[2])


def test_greedy_translations_are_those_of_the_equations_padded_or_not(model):
    slow = ByTheEquations(model)
    source = torch.tensor([[5, 6, 7], [9, PAD, PAD], [4, 4, PAD]])
    found = model.translate(source, torch.tensor([3, 1, 2]), longest=7).tolist()
    for (words, _), chosen in zip(SENTENCES, found, strict=True):
        expected = slow.translate(words, longest=7)
        assert chosen[: len(expected)] == expected


def test_greedy_steps_choose_what_teacher_forcing_finds_likeliest(model):
    source, lengths = torch.tensor([[5, 6, 7]]), torch.tensor([3])
    chosen = model.translate(source, lengths, longest=6)[0]
    previous = torch.cat([torch.tensor([BEGIN]), chosen[:-1]])
    sizes = torch.ones(len(chosen), dtype=torch.long)
    logits = model(source, lengths, previous, sizes)
    assert logits.argmax(1).tolist() == chosen.tolist()
