"""What the service is asked for."""

from __future__ import annotations

from typing import Any

from ditplan.v1 import generation_pb2

from tests.bench.inputs import DEMO

ROOMY = (
    *("--max-queue", "1000000", "--max-queue-per-client", "1000000"),
    *("--max-streams-per-client", "4000", "--model-root", str(DEMO)),
)
"""Options of a planner whose bounds are out of reach."""


def spec(**changes: Any) -> generation_pb2.GenerationSpec:
    """A picture of the demo model."""
    values = {"model": str(DEMO), "prompt": "a red star", "seed": 1, "num_inference_steps": 28}
    return generation_pb2.GenerationSpec(**(values | changes))


def create_request(request_id: str = "", **changes: Any) -> generation_pb2.CreateGenerationRequest:
    return generation_pb2.CreateGenerationRequest(
        request_id=request_id, spec=spec(**changes), queue_without_executor=True
    )
