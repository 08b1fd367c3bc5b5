"""Between the planner's values and the messages of the contract."""

from __future__ import annotations

from planner.codec.architecture import model_from_proto, model_to_proto
from planner.codec.diagnostics import diagnostics_from_proto, diagnostics_to_proto
from planner.codec.placement import placement_from_proto, placement_to_proto
from planner.codec.program import (
    MalformedProgramError,
    estimate_from_proto,
    plan_to_proto,
    program_from_proto,
    program_to_proto,
    received_program,
)

__all__ = [
    "MalformedProgramError",
    "diagnostics_from_proto",
    "diagnostics_to_proto",
    "estimate_from_proto",
    "model_from_proto",
    "model_to_proto",
    "placement_from_proto",
    "placement_to_proto",
    "plan_to_proto",
    "program_from_proto",
    "program_to_proto",
    "received_program",
]
