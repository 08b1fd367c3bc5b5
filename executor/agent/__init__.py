"""Asks a planner for work, runs it and tells every step back."""
