"""A language model on the bytes of a page; the Trainer's batch follows a policy.

python docs/examples/hf_trainer.py
"""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from rightbatch.integrations.transformers import BatchSizeCallback
from rightbatch.policies import Clip, GeoDamp

page = Path(__file__).parents[1] / "guide" / "training.md"
text = torch.tensor(list(page.read_bytes()))
rows = [{"input_ids": row, "labels": row} for row in text.unfold(0, 32, 32)]
shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=256, num_hidden_layers=2, **shape))
args = TrainingArguments(
    "hf-trainer",
    per_device_train_batch_size=8,  # the micro-batch: as many as fit
    num_train_epochs=5,
    learning_rate=0.01,
    logging_steps=20,
    save_strategy="no",
    report_to=[],
    use_cpu=True,
)
trainer = Trainer(model, args, train_dataset=rows)
policy = Clip(GeoDamp(initial_batch_size=8, delay=1, factor=2), high=64)
callback = BatchSizeCallback(trainer, policy)
trainer.add_callback(callback)
trainer.train()

last = callback.records[-1]
print(f"{last.step} updates, {last.examples} rows, loss {last.loss:.2f}; batches of")
print(sorted({record.batch_size for record in callback.records}))
