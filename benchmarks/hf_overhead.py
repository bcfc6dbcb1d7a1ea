"""What the callback adds to the updates of a Hugging Face Trainer.

    python benchmarks/hf_overhead.py [--only "noise"] [--cpu-clock]

Each line is the time of updates under the callback over that of the same Trainer
without it, at the same micro-batch, accumulation and optimizer, on a network whose
update takes 5 ms at least. The two train in turn in one process on one thread, from
the same weights; a turn is a call of `train`, its first updates left out, its time the
median of those of ten updates, and what counts is the upper end of the 90 % interval of
the median ratio. The exit status is 1
where that is above the bar.

* constant: the policy asks for nothing and says the same;
* loss-driven: RadaDamp, which looks at each batch's loss and gradient norm;
* noise: NoiseFollowing with AdaScale, noise measured at every 10th update.

glibc's allocator is told to keep its memory, for both alike, as sweep_rate.py explains.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise

import torch
from sweep_rate import KEEP_MEMORY, median_interval
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging

from rightbatch.controller import Acting
from rightbatch.integrations.transformers import BatchSizeCallback
from rightbatch.policies import Clip, Constant, NoiseFollowing, Policy, RadaDamp

MICRO, LENGTH, WORDS = 8, 32, 64
EACH = 10
BAR = 1.05


# 1) Settings --------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    name: str
    policy: Policy
    accumulation: int
    rule: str = "none"


def cases() -> list[Case]:
    def held(policy: Policy, accumulation: int) -> Policy:
        # It is asked at every update and looks at all it wants, at one batch size.
        return Clip(policy, low=MICRO * accumulation, high=MICRO * accumulation)

    found: list[Case] = []
    for count in (1, 4):
        size = MICRO * count
        rada = RadaDamp(initial_batch_size=size)
        noise = NoiseFollowing(initial_batch_size=size)
        found += [
            Case(f"constant, {count} pass", Constant(batch_size=size), count),
            Case(f"loss-driven, {count} pass", held(rada, count), count),
            Case(f"noise, {count} pass", held(noise, count), count, "adascale"),
        ]
    return found


# 2) The two Trainers ------------------------------------------------------------------


class Clock(TrainerCallback):
    """Takes the time of every ten updates: each ten has its share of measured ones."""

    def __init__(self, read) -> None:
        self.read, self.times = read, []

    def on_step_end(self, args, state, control, **rest) -> None:
        if state.global_step % EACH == 0:
            self.times.append(self.read())

    def seconds(self) -> float:
        """Return the seconds of an update; the first ten are left out."""
        took = [end - begin for begin, end in pairwise(self.times)]
        return statistics.median(took) / EACH


def trainer_of(folder: str, steps: int, accumulation: int) -> Trainer:
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=WORDS, num_hidden_layers=2, **shape)
    )
    words = torch.randint(WORDS, (4096, LENGTH))
    args = TrainingArguments(
        folder,
        max_steps=steps,
        per_device_train_batch_size=MICRO,
        gradient_accumulation_steps=accumulation,
        lr_scheduler_type="constant",
        optim="sgd",
        learning_rate=0.01,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    rows = [{"input_ids": row, "labels": row} for row in words]
    return Trainer(model, args, train_dataset=rows)


def seconds(case: Case, steps: int, read, *, followed: bool) -> float:
    """Return the seconds of an update, in a run of so many."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(folder, steps, 1 if followed else case.accumulation)
        if followed:
            base = MICRO * case.accumulation / 2
            callback = BatchSizeCallback(
                trainer,
                case.policy,
                lr_rule=case.rule,
                acting=Acting(lr_batch_size=base, guard=None),
            )
            trainer.add_callback(callback)
        clock = Clock(read)
        trainer.add_callback(clock)
        trainer.train()
        if followed:
            sizes = {record.batch_size for record in callback.records}
            assert sizes == {MICRO * case.accumulation}, sizes
    return clock.seconds()


# 3) Turn by turn ----------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--steps", type=int, default=60, help="updates of a turn")
    parser.add_argument("--only", default="", help="lines whose name holds this")
    parser.add_argument("--cpu-clock", action="store_true")
    args = parser.parse_args()
    if not KEEP_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    read = time.process_time if args.cpu_clock else time.perf_counter
    steps, good = EACH + args.steps, True
    print(f"{'':24s}{'ms':>7s}{'median':>8s}{'90 % interval':>20s}{'bar':>7s}")
    for case in cases():
        if args.only not in case.name:
            continue
        ratios: list[float] = []
        alone: list[float] = []
        for pair in range(args.pairs):
            order = (True, False) if pair % 2 else (False, True)
            took = {one: seconds(case, steps, read, followed=one) for one in order}
            ratios.append(took[True] / took[False])
            alone.append(took[False])
        low, high = median_interval(ratios, 0.9)
        good &= high <= BAR
        print(
            f"{case.name:24s}{1000 * statistics.median(alone):7.1f}"
            f"{statistics.median(ratios):8.3f}{low:12.3f}-{high:.3f}{BAR:9.2f}"
            f"{'' if high <= BAR else '  missed'}",
            flush=True,
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
