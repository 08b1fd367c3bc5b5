"""Rank 0 and the other ranks of an executor: control plane, failure detection, cancellation."""
