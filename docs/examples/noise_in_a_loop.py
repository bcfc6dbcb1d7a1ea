"""The gradient noise scale of a plain training loop: three lines, marked.

.venv/bin/python docs/examples/noise_in_a_loop.py
"""

from rightbatch.experiments.workloads.digits import mlp
from rightbatch.gradients import NoiseMeter
from rightbatch.sampler import ExampleStream

workload = mlp()
model = workload.model(0)
optimizer = workload.optimizer(model.parameters(), 0.2)
stream = ExampleStream(workload.train, seed=0)
meter = NoiseMeter(model, parts="layers")  # 1

for step in range(1, 401):
    optimizer.zero_grad()
    for _ in range(8):
        batch = stream.next(8)
        with meter.unit(examples=8):  # 2
            (workload.loss(model, batch).mean() / 8).backward()
    meter.update()  # 3: before clipping
    optimizer.step()
    if step % 100 == 0:
        print(f"{step} updates: {meter.noise_scale}")

for name, part in meter.noise_scale.parts.items():
    print(f"layer {name}: {part}")
