"""Ranks of an executor that die, stop and raise at random, and what becomes of the runs."""
