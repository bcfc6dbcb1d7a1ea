"""Learning rates that change along the way, and batches that grow instead."""
