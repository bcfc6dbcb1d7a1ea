r"""The translation model of Perrone et al., eqs. 14-17: GRUs with attention.

With :math:`e_t` the embedding of the target word before the t-th:

.. math::

    h_i &= [\overleftarrow{h}_i; \overrightarrow{h}_i] \quad\text{(a GRU each way)} \\
    s'_t &= \mathrm{GRU}_1(e_t, s_{t-1}) \\
    \alpha_t &= \mathrm{softmax}_i\, v \tanh(W h_i + U s'_t) \\
    H_t &= \textstyle\sum_i \alpha_{t,i} h_i \\
    s_t &= \mathrm{GRU}_2(H_t, s'_t) \\
    p(y_t) &= \mathrm{softmax}\, W_2 \tanh(W_1 [s_t; e_t; H_t])

The two GRUs and the attention between them are the conditional GRU of Sennrich et al.
(2017). The paper's eq. 17 writes :math:`s'_{t-1}`; as in Sennrich et al., what is meant
is taken to be the state between the GRUs, which has seen the word before. It gives no
sizes and no first state: here every inner width is the hidden size, and :math:`s_0 =
\tanh(W_0 \bar{h})` with the mean of the :math:`h_i`, as Sennrich et al. have it.

Sentences of a batch come in order of falling length, so that those which have ended
drop out of the computation instead of being padded: the t-th step works on the first
``batch_sizes[t]`` sentences (as in ``torch.nn.utils.rnn.PackedSequence``).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rightbatch.experiments.workloads.vocabulary import BEGIN, END, PAD


@dataclass(frozen=True, slots=True)
class Memory:
    """What the decoder sees of the sources.

    Args:
        states: The :math:`h_i`, shape (sentences, length, 2 x hidden).
        keys: The :math:`W h_i`, shape (sentences, length, hidden).
        mask: 0 at words, minus infinity at padding, shape (sentences, length).
    """

    states: Tensor
    keys: Tensor
    mask: Tensor

    def first(self, count: int) -> "Memory":
        """Return that of the first `count` sentences."""
        if count == len(self.states):
            return self
        return Memory(self.states[:count], self.keys[:count], self.mask[:count])


class GruAttention(nn.Module):
    """A bidirectional GRU, and a conditional GRU that attends to it.

    Args:
        vocabulary_size: Of the source and of the target, each.
        hidden_size: Width of each GRU, of the embeddings, the attention and the
            layer before the output.

    Example:
        >>> model = GruAttention(vocabulary_size=10, hidden_size=8)
        >>> source, lengths = torch.tensor([[4, 5, 6], [7, 0, 0]]), torch.tensor([3, 1])
        >>> model(source, lengths, torch.tensor([2, 2, 8]), torch.tensor([2, 1])).shape
        torch.Size([3, 10])
    """

    def __init__(self, *, vocabulary_size: int, hidden_size: int) -> None:
        super().__init__()
        size = hidden_size
        self.source_embedding = nn.Embedding(vocabulary_size, size, padding_idx=PAD)
        self.encoder = nn.GRU(size, size, batch_first=True, bidirectional=True)
        self.target_embedding = nn.Embedding(vocabulary_size, size, padding_idx=PAD)
        self.first_state = nn.Linear(2 * size, size)
        self.gru_1 = nn.GRUCell(size, size)
        self.attention_w = nn.Linear(2 * size, size)
        self.attention_u = nn.Linear(size, size, bias=False)
        self.attention_v = nn.Linear(size, 1, bias=False)
        self.gru_2 = nn.GRUCell(2 * size, size)
        self.readout = nn.Linear(4 * size, size)
        self.output = nn.Linear(size, vocabulary_size)

    def forward(
        self, source: Tensor, lengths: Tensor, previous: Tensor, batch_sizes: Tensor
    ) -> Tensor:
        """Return the logits of every target word, given those before it.

        Args:
            source: Numbers of the source words, shape (sentences, longest).
            lengths: Of the sources, shape (sentences,).
            previous: The word before each target word: those of the first step, then
                those of the second, ...; shape (target words,).
            batch_sizes: How many there are at each step; falling.

        Returns:
            Shape (target words, vocabulary size), in the order of `previous`.
        """
        memory, state = self.encode(source, lengths)
        embedded = self.target_embedding(previous)
        states: list[Tensor] = []
        contexts: list[Tensor] = []
        for inputs in embedded.split(batch_sizes.tolist()):
            count = len(inputs)
            state, context, _ = self.step(inputs, state[:count], memory.first(count))
            states.append(state)
            contexts.append(context)
        return self.logits(torch.cat(states), embedded, torch.cat(contexts))

    def encode(self, source: Tensor, lengths: Tensor) -> tuple[Memory, Tensor]:
        """Return what the decoder attends to, and its first state."""
        longest = source.shape[1]
        packed = pack_padded_sequence(
            self.source_embedding(source),
            lengths.cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        states, _ = pad_packed_sequence(
            self.encoder(packed)[0], batch_first=True, total_length=longest
        )
        padding = torch.arange(longest, device=source.device) >= lengths[:, None]
        mask = torch.zeros_like(padding, dtype=states.dtype)
        mask = mask.masked_fill(padding, -torch.inf)
        mean = states.sum(1) / lengths[:, None]
        memory = Memory(states, self.attention_w(states), mask)
        return memory, torch.tanh(self.first_state(mean))

    def step(
        self, embedded: Tensor, state: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next state, the context and the attention weights.

        Args:
            embedded: The word before, shape (sentences, hidden).
            state: The state before, shape (sentences, hidden).
            memory: Of those sentences.
        """
        between = self.gru_1(embedded, state)
        query = self.attention_u(between).unsqueeze(1)
        scores = self.attention_v(torch.tanh(memory.keys + query)).squeeze(2)
        weights = torch.softmax(scores + memory.mask, 1)
        context = torch.bmm(weights.unsqueeze(1), memory.states).squeeze(1)
        return self.gru_2(context, between), context, weights

    def logits(self, states: Tensor, embedded: Tensor, contexts: Tensor) -> Tensor:
        """Return the logits of the next words, shape (words, vocabulary size)."""
        inputs = torch.cat([states, embedded, contexts], 1)
        return self.output(torch.tanh(self.readout(inputs)))

    @torch.no_grad()
    def translate(self, source: Tensor, lengths: Tensor, longest: int) -> Tensor:
        """Return each sentence's translation, the likeliest word at every step.

        Args:
            source: Numbers of the source words, shape (sentences, longest source).
            lengths: Of the sources, shape (sentences,).
            longest: Words after which a translation is cut off.

        Returns:
            Numbers of the words, shape (sentences, at most `longest`); what follows
            an end mark means nothing.
        """
        memory, state = self.encode(source, lengths)
        word = torch.full_like(lengths, BEGIN)
        ended = torch.zeros_like(lengths, dtype=torch.bool)
        chosen: list[Tensor] = []
        while len(chosen) < longest and not bool(ended.all()):
            embedded = self.target_embedding(word)
            state, context, _ = self.step(embedded, state, memory)
            word = self.logits(state, embedded, context).argmax(1)
            ended |= word == END
            chosen.append(word)
        return torch.stack(chosen, 1)
