"""Trains the demo model: a small FLUX.1 pipeline that draws coloured shapes."""
