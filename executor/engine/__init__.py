"""Runs programs: block-level cache, calibrators, one arena of state per run."""
