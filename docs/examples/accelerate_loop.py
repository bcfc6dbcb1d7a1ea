"""A loop of one's own with Accelerate, whose loss is a mean over tokens.

accelerate launch docs/examples/accelerate_loop.py
"""

from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import GPT2Config, GPT2LMHeadModel

from rightbatch import BatchSizeController, MicroBatchStream
from rightbatch.controller import Acting, Sensing
from rightbatch.policies import Clip, PadaDamp
from rightbatch.sampler import Loading

torch.manual_seed(0)
text = torch.tensor(list(Path(torch.__file__).read_bytes()[:16384])).view(-1, 64)
rows = text.masked_fill(torch.arange(64) > torch.randint(8, 64, (256, 1)), -100)
accelerator = Accelerator(cpu=True)  # mixed_precision="fp16" on a GPU
config = GPT2Config(vocab_size=256, n_positions=64, n_embd=32, n_layer=2, n_head=2)
model = accelerator.prepare(GPT2LMHeadModel(config))
controller = BatchSizeController(
    model,
    torch.optim.AdamW(model.parameters(), lr=0.01),  # torch's own, not prepared
    Clip(PadaDamp(initial_batch_size=8, rate=1), high=64),
    MicroBatchStream(rows, 8, loading=Loading(device=accelerator.device)),
    lr_rule="auto",
    sensing=Sensing(tokens=lambda batch: (batch[:, 1:] != -100).sum()),
    acting=Acting(scaler=accelerator.scaler, max_grad_norm=1.0),
)
for update in controller.updates(epochs=5):
    for part in update:
        update.backward(model(part.batch.clamp(min=0), labels=part.batch).loss)
    update.step()
accelerator.print(f"{controller.step} updates, loss {controller.records[-1].loss:.2f}")
