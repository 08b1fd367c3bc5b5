"""Executes one leased run, in the thread that calls it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import grpc
from ditplan.dispatch.v1.dispatch_pb2 import Assignment, Completion, Lease, RunFailure
from ditplan.dispatch.v1.dispatch_pb2_grpc import DispatchServiceStub
from structlog.typing import FilteringBoundLogger

from executor import codec
from executor.agent.artifacts import ArtifactFile, encode
from executor.agent.delivery import Delivery, RejectedArtifactError
from executor.agent.failures import describe, failure
from executor.agent.lease import LeasedRun
from executor.agent.shutdown import Shutdown
from executor.agent.telemetry.facts import Facts, RunBegan, RunEnded, StepDone
from executor.engine import run as engine
from executor.engine.program import StepOutcome
from executor.runtime.failures import RunFailedError
from executor.runtime.ranks import Ranks, needs_reload

DELIVERY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Success:
    files: list[ArtifactFile]
    completion: Completion


class Runner:
    """Runs what is leased to this executor on its ranks, one run after the other."""

    def __init__(
        self,
        ranks: Ranks,
        *,
        name: str,
        shutdown: Shutdown,
        on_begin: Callable[[str, str], None],
        reloading: Callable[[], AbstractContextManager[None]] | None = None,
        log: FilteringBoundLogger,
        facts: Facts,
        log_prompts: bool = False,
        delivery_seconds: float = DELIVERY_SECONDS,
    ) -> None:
        """``on_begin`` is told generation and plan id once a run has its program. The model is
        loaded anew, in the context that ``reloading`` gives, for a plan of another placement; not
        without it.
        """
        self._ranks = ranks
        self._name = name
        self._shutdown = shutdown
        self._on_begin = on_begin
        self._reloading = reloading
        self._log = log
        self._facts = facts
        self._log_prompts = log_prompts
        self._delivery_seconds = delivery_seconds

    def run(self, stub: DispatchServiceStub, lease: Lease, assignment: Assignment) -> None:
        """From the lease to its end. A run that fails is reported.

        It begins before the planner has heard that the lease is taken: one that is over by then
        ends it as it does later.

        Raises:
            ExecutorFailedError: no other run can succeed in these processes.
        """
        began = time.monotonic()
        log = self._log.bind(generation=lease.generation, epoch=lease.epoch)
        with LeasedRun(stub, lease, self._name, log, self._facts) as leased:
            outcome = self._attempt(leased, assignment, log)
            give_up_at = time.monotonic() + self._delivery_seconds
            delivery = Delivery(leased, deadline=lambda: self._shutdown.limit(give_up_at), log=log)
            final = _store(delivery, outcome) if isinstance(outcome, Success) else outcome
            if final is not None:
                delivery.conclude(final)
        self._facts.tell(_ended(final, time.monotonic() - began))
        if not isinstance(outcome, Success):
            self._ranks.recover()

    def _attempt(
        self, leased: LeasedRun, assignment: Assignment, log: FilteringBoundLogger
    ) -> Success | RunFailure | None:
        """Runs it; None where there is no one to tell what came of it."""
        try:
            log = log.bind(plan_id=assignment.plan_id)
            self._on_begin(leased.lease.generation, assignment.plan_id)
            steps = len(assignment.program.steps)
            prompt = {"prompt": assignment.spec.prompt} if self._log_prompts else {}
            log.info("run_started", steps=steps, **prompt)
            self._facts.tell(
                RunBegan(
                    leased.lease.generation,
                    leased.lease.epoch,
                    assignment.plan_id,
                    steps,
                    assignment.traceparent,
                )
            )
            reload_seconds = self._reload(assignment, log)
            result = self._denoise(leased, assignment)
            spec = assignment.spec
            files = encode(result, save_latents=spec.save_latents, image_format=spec.image_format)
            log.info("run_finished", seconds=round(result.total_seconds, 3))
            return Success(
                files,
                Completion(
                    denoise_seconds=result.denoise_seconds,
                    total_seconds=result.total_seconds,
                    cache_bytes=result.cache_bytes,
                    exchanges=codec.exchanges_to_proto(result.exchanges),
                    reload_seconds=reload_seconds,
                ),
            )
        except engine.RunCancelled:
            return self._stopped(leased, log)
        except Exception as error:
            outcome = describe(error)
            # The rank where it failed has told its own log how.
            trace = not isinstance(error, RunFailedError)
            log.error("run_failed", code=outcome.code, reason=outcome.message, exc_info=trace)
            return outcome

    def _reload(self, assignment: Assignment, log: FilteringBoundLogger) -> float:
        """Has the ranks hold what the plan needs, if they may; how long that took, in seconds."""
        if self._reloading is None:
            return 0.0
        # Nothing here may hold the pipeline, which is to be let go of.
        placement = needs_reload(self._ranks.loaded, assignment.plan_id, assignment.program)
        if placement is None:
            return 0.0
        self._ranks.check(placement)
        log.info("reload_started", quantization=str(placement.quantization) or "none")
        began = time.monotonic()
        with self._reloading():
            self._ranks.reload(placement)
        seconds = time.monotonic() - began
        log.info("reload_finished", seconds=round(seconds, 3))
        return seconds

    def _denoise(self, leased: LeasedRun, assignment: Assignment) -> engine.RunResult:
        def on_step(outcome: StepOutcome) -> None:
            leased.report(codec.step_to_proto(outcome))
            self._facts.tell(StepDone(outcome))

        result = self._ranks.run(
            assignment.plan_id,
            assignment.program,
            assignment.spec,
            on_step=on_step,
            is_cancelled=lambda: leased.stopped or self._shutdown.expired,
        )
        if leased.stopped:
            raise engine.RunCancelled
        return result

    def _stopped(self, leased: LeasedRun, log: FilteringBoundLogger) -> RunFailure | None:
        if leased.lost:
            return None
        if leased.cancel_reason is not None:
            log.info("run_cancelled", reason=leased.cancel_reason)
            return failure(grpc.StatusCode.CANCELLED, leased.cancel_reason)
        log.warning("run_stopped_by_drain")
        return RunFailure(
            code=grpc.StatusCode.UNAVAILABLE.name,
            message="it was told to end",
            retryable=True,
            handed_back=True,
        )


def _ended(final: Completion | RunFailure | None, seconds: float) -> RunEnded:
    match final:
        case Completion():
            return RunEnded(grpc.StatusCode.OK.name, "", seconds, final)
        case RunFailure():
            return RunEnded(final.code, final.message, seconds, None)
        case None:
            return RunEnded(grpc.StatusCode.ABORTED.name, "the lease is over", seconds, None)


def _store(delivery: Delivery, success: Success) -> Completion | RunFailure | None:
    """What is left to say once the files are stored, or cannot be."""
    try:
        return success.completion if delivery.store(success.files) else None
    except RejectedArtifactError as error:
        return failure(error.code, str(error))
