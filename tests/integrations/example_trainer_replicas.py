"""What each of several replicas does in the tests of Trainers."""

import os

import torch
from example_policies import Listed
from integrations.example_texts import (
    language_model,
    miscounted_language_model,
    texts,
)
from integrations.example_trainers import Net, Rows, followed, trainer_of, weights

from rightbatch.controller import Sensing
from rightbatch.policies import Clip, NoiseFollowing

COUNT = 88
MODELS = {
    "rows": (Net, lambda: Rows(COUNT)),
    "tokens": (language_model, lambda: texts("words", COUNT)),
    "miscounted": (miscounted_language_model, lambda: texts("words", COUNT)),
}


def train(folder, kind, resume=None, *, policy=None, **settings):
    """Return the batch sizes, losses and weights of a run on each of a kind of data."""
    model_of, dataset_of = MODELS[kind]
    model = model_of()
    # Adam makes steps of rounding errors where a gradient is nought, as that of GPT-2's
    # key biases is.
    given = {"num_train_epochs": 2, "optim": "sgd", "learning_rate": 0.3} | settings
    trainer = trainer_of(folder, model, dataset_of(), **given)
    policy = policy or Listed((8, 16, 8, 24))
    follower = followed(trainer, policy, lr_rule="linear", sensing=Sensing(every=2))
    trainer.train(resume_from_checkpoint=resume)
    records = follower.records
    return {
        "sizes": [one.batch_size for one in records],
        "losses": [one.loss for one in records],
        "noise": [one.noise_scale for one in records],
        "weights": weights(model),
    }


def noise():
    return Clip(NoiseFollowing(initial_batch_size=16), low=8, high=48)


def work(rank, meeting, folder):
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": (folder / "port").read_text(),
    }
    found = {kind: train(folder / kind, kind) for kind in MODELS}
    saving = {"save_strategy": "steps", "save_steps": 1}
    found["noise"] = train(folder / "noise", "rows", policy=noise(), **saving)
    at = len(found["noise"]["sizes"]) // 2
    checkpoint = str(folder / "noise" / f"checkpoint-{at}")
    found["resumed"] = train(folder / "again", "rows", checkpoint, policy=noise())
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
