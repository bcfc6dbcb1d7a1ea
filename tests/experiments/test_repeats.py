"""Repeats in tables: kept apart by their names, and said where they cannot be."""

import math
from dataclasses import replace

from rightbatch.experiments.repeats import repeat_warnings, runs_to_loss
from rightbatch.experiments.tables import TableRun, read_losses

RUN = TableRun(workload="", target=None, batch_size=8, steps=5, lr=0.1, run="a")


def test_losses_become_runs_that_stop_at_the_target(tmp_path):
    text = "workload,batch_size,steps,loss,run\na,8,100,4,x\na,8,400,1,x\na,8,100,3,y\n"
    path = tmp_path / "table.csv"
    path.write_text(text)
    first, second = runs_to_loss(read_losses(path), 2)
    assert (first.workload, first.target, first.steps, first.run) == ("a", 2, 200, "x")
    assert math.isnan(second.steps)
    assert repeat_warnings([first, second]) == ()
    (said,) = repeat_warnings([first, first])
    assert "run 'x' stands twice at batch size 8:" in said


def test_rows_without_a_name_are_runs_of_their_own():
    nameless = replace(RUN, run="")
    assert repeat_warnings([nameless, nameless]) == ()


def test_a_name_may_come_again_elsewhere():
    others = ({"batch_size": 9}, {"lr": 0.2}, {"target": 1}, {"workload": "b"})
    assert repeat_warnings([RUN, *(replace(RUN, **one) for one in others)]) == ()


def test_means_are_said_once():
    mean = replace(RUN, run="", is_mean=True)
    (said,) = repeat_warnings([mean, mean, RUN])
    assert said.startswith("several rows share batch size")
