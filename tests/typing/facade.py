"""What the strict type checker must conclude of the public names; never executed."""

from typing import assert_type

import rightbatch

fit = rightbatch.fit_convergence([8, 64], [100, 20])
assert_type(fit, rightbatch.ConvergenceFit)
assert_type(fit.law.critical_batch_size, float)
assert_type(fit.critical_batch_size, rightbatch.Interval)
assert_type(fit.critical_batch_size.low, float | None)

step_time = rightbatch.fit_step_time([8, 64, 512], [0.1, 0.2, 0.9])
assert_type(step_time, rightbatch.StepTimeFit)
assert_type(step_time.law, rightbatch.StepTimeLaw)

time = rightbatch.TrainingTimeLaw(steps=fit.law, step_time=step_time.law)
plan = rightbatch.plan_batch_sizes(time, [1, 2])
assert_type(plan, rightbatch.Plan)
assert_type(plan.entries[0].batch_size, int)

workload = rightbatch.load_workload("digits-mlp")
assert_type(workload, rightbatch.Workload)
assert_type(workload.target, rightbatch.Target)

meter = rightbatch.NoiseMeter(workload.model(0))
assert_type(meter.noise_scale, rightbatch.NoiseReading)
assert_type(meter.noise_scale.interval, rightbatch.Interval)
assert_type(meter.noise_scale.value, float | None)
