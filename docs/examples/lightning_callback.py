"""A Lightning run whose batch follows the noise of the gradient.

.venv/bin/python docs/examples/lightning_callback.py
"""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from rightbatch.integrations.lightning import BatchSizeCallback


class Digits(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Linear(64, 10)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


torch.manual_seed(0)
images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
train_set = TensorDataset(images.float() / 16, labels)
callback = BatchSizeCallback("noise-following")
trainer = pl.Trainer(max_epochs=10, callbacks=[callback], enable_checkpointing=False)
trainer.fit(Digits(), DataLoader(train_set, batch_size=16, shuffle=True))
print(f"batch {callback.batch_size}, {callback.noise_scale}")
