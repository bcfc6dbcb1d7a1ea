"""Workloads that come with rightbatch."""
