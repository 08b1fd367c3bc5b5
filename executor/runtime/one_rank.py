"""An executor of one rank: the run is in the thread that asks for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ditplan.v1 import generation_pb2, plan_pb2

from executor import codec
from executor.engine import run as engine
from executor.engine.program import StepOutcome
from executor.placement.load import LoadedPipeline
from executor.runtime.failures import ExecutorFailedError, is_device_failure
from executor.runtime.ranks import accept


class OneRank:
    """`Ranks` of one."""

    def __init__(self, loaded: LoadedPipeline) -> None:
        self.loaded = loaded
        self._device_failed = False

    def run(
        self,
        plan_id: str,
        program: plan_pb2.Program,
        spec: generation_pb2.GenerationSpec,
        *,
        on_step: Callable[[StepOutcome], None],
        is_cancelled: Callable[[], bool],
    ) -> engine.RunResult:
        accepted = accept(self.loaded, plan_id, program)
        try:
            return engine.run(
                self.loaded.pipeline,
                accepted,
                codec.spec_from_proto(spec),
                on_step=on_step,
                is_cancelled=lambda step: is_cancelled(),
            )
        except Exception as error:
            self._device_failed = is_device_failure(error)
            raise

    def recover(self) -> None:
        if self._device_failed:
            raise ExecutorFailedError(f"device {self.loaded.device_name} failed")
        torch.cuda.empty_cache()
