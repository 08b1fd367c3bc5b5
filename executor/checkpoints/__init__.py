"""Checkpoints as they lie on a disk or on the hub: looked over before anything is loaded."""
