"""When stacks are compiled, and when what was compiled is used."""

import pytest
import tiny_workload
from experiments.example_graphs import traced_only

from rightbatch.engine import Stack, make_update
from rightbatch.engine.compiled import Compilation
from rightbatch.errors import InputError
from rightbatch.experiments import graphs as module
from rightbatch.experiments.graphs import CompiledGraphs
from rightbatch.experiments.tiers import find_stacking
from rightbatch.sampler import ExampleStream

WORKLOAD = tiny_workload.tiny()
FORWARD = find_stacking(WORKLOAD, 4).forward


def compiled(graphs, members, batch_size=4):
    updates = [
        make_update(WORKLOAD.model(s), WORKLOAD.optimizer, WORKLOAD.loss, 0.1)
        for s in range(members)
    ]
    streams = [ExampleStream(WORKLOAD.train, seed) for seed in range(members)]
    found = graphs.compiled(Stack(updates, FORWARD), streams, batch_size)
    assert all(stream.examples == 0 for stream in streams)
    return found


def test_fewer_members_use_what_was_compiled_for_more(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "compile_steps", traced_only(calls=calls))
    graphs = CompiledGraphs(WORKLOAD)
    assert [compiled(graphs, members).width for members in (4, 4, 3, 1)] == [4] * 4
    assert calls == [4]


def test_more_members_and_another_batch_size_are_compiled_anew(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "compile_steps", traced_only(calls=calls))
    graphs = CompiledGraphs(WORKLOAD)
    widths = [compiled(graphs, *one).width for one in ((2,), (3,), (2, 8), (2,))]
    assert widths == [2, 3, 2, 3]
    assert calls == [2, 3, 2]


def test_so_few_that_a_stack_of_their_own_is_faster_are_not_compiled(monkeypatch):
    monkeypatch.setattr(module, "compile_steps", traced_only(gain=2.0))
    graphs = CompiledGraphs(WORKLOAD)
    found = [compiled(graphs, members) for members in (6, 3, 2)]
    assert [one is not None for one in found] == [True, True, False]


def test_what_gains_nothing_is_used_where_it_was_asked_for_alone(monkeypatch):
    monkeypatch.setattr(module, "compile_steps", traced_only(gain=1.5))
    assert compiled(CompiledGraphs(WORKLOAD), 3) is None
    required = CompiledGraphs(WORKLOAD, required=True)
    assert compiled(required, 3) is not None
    assert compiled(required, 2) is not None
    assert compiled(required, 1) is None


def test_what_cannot_be_compiled_is_an_error_where_it_was_asked_for(monkeypatch):
    calls = []

    def failing(stack, batches):
        calls.append(len(stack))
        return Compilation(None, "it cannot be compiled (OSError)")

    monkeypatch.setattr(module, "compile_steps", failing)
    graphs = CompiledGraphs(WORKLOAD)
    assert [compiled(graphs, 3), compiled(graphs, 2)] == [None, None]
    assert calls == [3]
    with pytest.raises(
        InputError, match=r"`tier` compiled cannot be had for tiny: it cannot be comp"
    ):
        compiled(CompiledGraphs(WORKLOAD, required=True), 3)
