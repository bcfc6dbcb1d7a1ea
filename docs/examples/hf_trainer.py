"""A language model on torch's own source; the Trainer's batch follows a policy.

python docs/examples/hf_trainer.py
"""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from rightbatch.integrations.transformers import BatchSizeCallback

text = torch.tensor(list(Path(torch.__file__).read_bytes()[:16384]))
rows = [{"input_ids": row, "labels": row} for row in text.view(-1, 32)]
shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=256, num_hidden_layers=2, **shape))
args = TrainingArguments(
    "hf-trainer",
    per_device_train_batch_size=8,  # the micro-batch: as many as fit
    num_train_epochs=4,
    learning_rate=0.01,
    logging_steps=20,
    save_strategy="no",
    report_to=[],
    use_cpu=True,
)
trainer = Trainer(model, args, train_dataset=rows)
callback = BatchSizeCallback(trainer, "geodamp:delay=1,factor=2")
trainer.add_callback(callback)
trainer.train()
last = callback.records[-1]
print(f"{last.step} updates of 8 to {last.batch_size} rows, loss {last.loss:.2f}")
