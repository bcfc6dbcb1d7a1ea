"""Stores and runs made up, and a store as the first schema had it."""

import sqlite3
from dataclasses import replace

from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.record import Run, TargetCrossing
from rightbatch.experiments.store import RunStore, StoreIdentity

IDENTITY = StoreIdentity(
    workload="tiny",
    fingerprint={"parameters": 10, "metric": "loss", "direction": "min"},
    example_unit="example",
)

# As the release with schema 1 made them, letter for letter.
TABLES_OF_SCHEMA_1 = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
        id INTEGER PRIMARY KEY, session INTEGER NOT NULL,
        batch_size INTEGER NOT NULL, lr REAL NOT NULL, seed INTEGER NOT NULL,
        targets TEXT NOT NULL, crossing TEXT NOT NULL, budget INTEGER NOT NULL,
        status TEXT NOT NULL, last_step INTEGER NOT NULL, nearest REAL,
        crossings TEXT NOT NULL, trace TEXT NOT NULL,
        seconds_training REAL NOT NULL, seconds_checking REAL NOT NULL,
        median_step_seconds REAL, versions TEXT NOT NULL, finished TEXT NOT NULL,
        UNIQUE (session, batch_size, lr, seed, targets, crossing, budget));
CREATE TABLE IF NOT EXISTS timings (
        id INTEGER PRIMARY KEY, session INTEGER NOT NULL,
        batch_size INTEGER NOT NULL, num_replicas INTEGER NOT NULL,
        seconds REAL NOT NULL, low REAL NOT NULL, high REAL NOT NULL,
        device TEXT NOT NULL, versions TEXT NOT NULL,
        UNIQUE (session, batch_size, num_replicas, device));
CREATE TABLE IF NOT EXISTS trainings (
        id INTEGER PRIMARY KEY, session INTEGER NOT NULL,
        policy TEXT NOT NULL, seed INTEGER NOT NULL, settings TEXT NOT NULL,
        status TEXT NOT NULL, steps INTEGER NOT NULL, examples INTEGER NOT NULL,
        loss REAL, seconds REAL NOT NULL, content BLOB NOT NULL,
        versions TEXT NOT NULL, finished TEXT NOT NULL,
        UNIQUE (session, policy, seed, settings));
"""
META_OF_SCHEMA_1 = {
    "schema": "1",
    "written_by": "0.7.0",
    "workload": "tiny",
    "fingerprint": '{"parameters": 10, "metric": "loss", "direction": "min"}',
    "session": "1",
}
RUN_OF_SCHEMA_1 = (
    "INSERT INTO runs VALUES (NULL, 1, 8, 0.1, ?, '[0.5]', "
    '\'{"definition": "smoothed", "direction": "min", "gate": null}\', 100, '
    "'reached', 50, 0.4, "
    '\'[{"target": 0.5, "status": "reached", "steps": 50, "grid_spacing": 1}]\', '
    "'[[0, 2.5], [50, 0.4]]', 1.0, 0.5, 0.01, '{}', '2026-01-01T00:00:00Z')"
)


def made_by_schema_1(path, num_runs=3, *, without_trainings=False):
    """Write a store as the first schema had it; return the runs it should give."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA application_id = 0x72626174")
    connection.executescript(TABLES_OF_SCHEMA_1)
    if without_trainings:
        # That table came later than the schema's number.
        connection.execute("DROP TABLE trainings")
    connection.executemany("INSERT INTO meta VALUES (?, ?)", META_OF_SCHEMA_1.items())
    connection.executemany(RUN_OF_SCHEMA_1, [(seed,) for seed in range(num_runs)])
    connection.commit()
    connection.close()
    return tuple(
        run_of(
            steps=50,
            seed=seed,
            trace=((0, 2.5), (50, 0.4)),
            nearest=0.4,
            seconds_checking=0.5,
        )
        for seed in range(num_runs)
    )


def run_of(batch_size=8, lr=0.1, seed=0, steps=100, target=0.5, **changes):
    """Return a run that reached its target in so many steps, or did not when None."""
    status = changes.pop("status", "not_reached" if steps is None else "reached")
    spacing = changes.pop("grid_spacing", 1)
    crossed = TargetCrossing(
        target=target,
        status=status,
        steps=steps,
        grid_spacing=None if steps is None else spacing,
    )
    run = Run(
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        status=status,
        last_step=steps or 100,
        budget=100,
        trace=((0, 2.5),),
        crossings=(crossed,),
        nearest=None,
        crossing=Crossing(),
        seconds_training=1.0,
        seconds_checking=0.1,
        median_step_seconds=0.01,
    )
    return replace(run, **changes)


def written(path, runs, identity=IDENTITY):
    """Write a store with one session of runs; return its path."""
    with RunStore(path, identity) as store:
        store.begin(resume=False)
        for run in runs:
            store.add_run(run)
    return path
