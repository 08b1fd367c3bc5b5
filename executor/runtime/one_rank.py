"""An executor of one rank: the run is in the thread that asks for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ditplan.v1 import generation_pb2, plan_pb2

from executor import codec
from executor.engine import run as engine
from executor.engine.program import StepOutcome
from executor.placement.load import LoadedPipeline
from executor.placement.placement import Placement
from executor.runtime.failures import ExecutorFailedError, is_device_failure
from executor.runtime.held import Held
from executor.runtime.ranks import accept


class OneRank:
    """`Ranks` of one."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._failure = ""

    @property
    def loaded(self) -> LoadedPipeline:
        return self._held.loaded

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
                device=self.loaded.device,
            )
        except Exception as error:
            if is_device_failure(error):
                self._failure = f"device {self.loaded.device_name} failed"
            raise

    def check(self, placement: Placement) -> None:
        self._held.check(placement)

    def reload(self, placement: Placement) -> None:
        try:
            self._held.reload(placement)
        except Exception as error:
            self._failure = f"the model could not be loaded anew: {error}"
            raise

    def recover(self) -> None:
        if self._failure:
            raise ExecutorFailedError(self._failure)
        torch.cuda.empty_cache()
