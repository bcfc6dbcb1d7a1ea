"""The byte transformer against its definition, written out position by position."""

import math

import torch
from torch.nn import functional

from rightbatch.experiments.workloads.transformer import ByteTransformer


def small():
    torch.manual_seed(0)
    model = ByteTransformer(context=8, width=12, num_layers=2, num_heads=3).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def attention(block, x):
    """Position by position, head by head; x has shape (length, width)."""
    normed = block.attention_norm(x)
    width = x.shape[1]
    each = width // block.num_heads
    qkv = block.queries_keys_values(normed)
    q, k, v = qkv[:, :width], qkv[:, width : 2 * width], qkv[:, 2 * width :]
    rows = []
    for t in range(len(x)):
        heads = []
        for head in range(block.num_heads):
            part = slice(head * each, (head + 1) * each)
            scores = [float(q[t, part] @ k[s, part]) for s in range(t + 1)]
            scores = torch.tensor(scores, dtype=x.dtype) / math.sqrt(each)
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(w * v[s, part] for s, w in enumerate(weights)))
        rows.append(block.attention_output(torch.cat(heads)))
    return torch.stack(rows)


@torch.no_grad()
def test_the_logits_are_those_of_a_pre_norm_transformer_written_out():
    model, text = small(), torch.tensor([10, 200, 30, 30, 7])
    x = model.embedding.weight[text] + model.positions[:5]
    for block in model.blocks:
        x = x + attention(block, x)
        norm, up, _, down = block.feed_forward
        x = x + down(functional.gelu(up(norm(x))))
    expected = model.output(model.norm(x))
    torch.testing.assert_close(model(text[None])[0], expected)


@torch.no_grad()
def test_no_logit_depends_on_a_later_byte():
    model, text = small(), torch.arange(8)[None]
    changed = text.clone()
    changed[0, 5] = 99
    same = (model(text) == model(changed)).all(2)[0]
    assert same.tolist() == [True] * 5 + [False] * 3
