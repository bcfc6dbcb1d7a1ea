"""A loop of one's own with Accelerate, whose loss is a mean over tokens.

accelerate launch docs/examples/accelerate_loop.py
"""

from pathlib import Path

import torch
from accelerate import Accelerator
from torch.nn import functional
from torch.utils.data import TensorDataset
from transformers import LlamaConfig, LlamaForCausalLM

from rightbatch import BatchSizeController, MicroBatchStream
from rightbatch.controller import Acting, Sensing
from rightbatch.policies import Clip, PadaDamp
from rightbatch.sampler import Loading

page = Path(__file__).parents[1] / "guide" / "training.md"
rows = torch.full((sum(map(bool, page.read_bytes().splitlines())), 64), -100)
for row, line in zip(rows, filter(None, page.read_bytes().splitlines()), strict=True):
    row[: len(line)] = torch.tensor(list(line[:64]))
shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=256, num_hidden_layers=2, **shape))


def loss_of(row):
    logits = model(row.clamp(min=0)).logits[:, :-1].flatten(0, 1)
    return functional.cross_entropy(logits, row[:, 1:].flatten())


accelerator = Accelerator(cpu=True)  # mixed_precision="fp16" on a GPU
model = accelerator.prepare(model)
controller = BatchSizeController(
    model,
    torch.optim.AdamW(model.parameters(), lr=0.01),  # torch's own, not prepared
    Clip(PadaDamp(initial_batch_size=8, rate=1), high=64),
    MicroBatchStream(
        TensorDataset(rows), 8, loading=Loading(device=accelerator.device)
    ),
    lr_rule="auto",
    sensing=Sensing(tokens=lambda batch: (batch[0][:, 1:] != -100).sum()),
    acting=Acting(scaler=accelerator.scaler, max_grad_norm=1.0),
)
for update in controller.updates(epochs=5):
    for part in update:
        update.backward(loss_of(part.batch[0]))
    update.step()

if accelerator.is_main_process:
    last = controller.records[-1]
    print(
        f"{last.step} updates, batch {last.batch_size}, {last.tokens:.0f} tokens, "
        f"loss {last.loss:.2f}"
    )
