"""A cluster of two worker processes for the tests of a file."""

import logging

import dask
import pytest
from example_replicas import forks_with_torch

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster():
    forks_with_torch()
    settings = {
        # A worker that was killed comes back when it comes, on a busy machine too.
        "distributed.deploy.lost-worker-timeout": "120s",
        "distributed.worker.multiprocessing-method": "forkserver",
    }
    with dask.config.set(settings):
        cluster = distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        )
        with cluster:
            yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture
def threads():
    """Return a client of a cluster in this process, which scales at once."""
    cluster = distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client
