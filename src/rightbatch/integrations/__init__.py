"""rightbatch where people already work: one module per library, each an extra."""
