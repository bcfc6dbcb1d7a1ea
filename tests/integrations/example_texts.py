"""Padded texts of several lengths, and small models of them."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

COUNT, LENGTH, WORDS = 22, 7, 11


def texts(kind, count=COUNT):
    """Return texts of several lengths, padded, with labels of a kind."""
    generator = torch.Generator().manual_seed(3)
    rows = []
    for place in range(count):
        words = torch.randint(1, WORDS, (LENGTH,), generator=generator)
        mask = (torch.arange(LENGTH) < 2 + place % 6).long()
        labels = words.masked_fill(mask == 0, -100)
        if kind == "classes":
            labels = words[0] % 3
        elif kind == "tokens":
            labels = torch.where(labels == -100, labels, labels % 3)
        elif kind == "values":
            labels = words[0].double() / WORDS
        rows.append({"input_ids": words, "attention_mask": mask, "labels": labels})
    return rows


def language_model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def miscounted_language_model():
    """Return a model whose first words are counted, though none of them is told."""
    torch.manual_seed(0)
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": LENGTH}
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, **sizes, **rates, **ends))
