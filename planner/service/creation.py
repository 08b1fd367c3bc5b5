"""Accepts work: checked, compiled, matched against the executors, stored."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence

import grpc
import structlog
from ditplan.v1 import generation_pb2, planner_pb2

from planner.codec import diagnostics_to_proto
from planner.dispatch.facts import Compiled, Created, Facts
from planner.dispatch.retention import Retention
from planner.dispatch.roster import Roster
from planner.dispatch.settlement import Settlement
from planner.dispatch.shutdown import Shutdown
from planner.dispatch.wording import reload_hint, why_none_matches
from planner.errors import CallRefused, ErrorReason, storage_full
from planner.service.admission import Admitted, admit
from planner.service.checks import check_generation, check_length, check_size, seconds
from planner.service.models import ModelLookup
from planner.service.names import new_id
from planner.settings import Settings
from planner.store.interface import Store
from planner.store.values import Needs, NewGeneration

_QUEUE_FULL_RETRY_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Creation:
    def __init__(
        self,
        store: Store,
        roster: Roster,
        models: ModelLookup,
        settlement: Settlement,
        shutdown: Shutdown,
        retention: Retention,
        settings: Settings,
        facts: Facts,
        traceparent: Callable[[], str],
    ) -> None:
        """``traceparent``: the span of the call that is being answered."""
        self._store = store
        self._roster = roster
        self._models = models
        self._settlement = settlement
        self._shutdown = shutdown
        self._retention = retention
        self._limits = settings.limits
        self._timing = settings.timing
        self._log_prompts = settings.log_prompts
        self._facts = facts
        self._traceparent = traceparent

    def admit(self, request: generation_pb2.CreateGenerationRequest) -> Admitted:
        """Everything that creation checks, without creating."""
        check_generation(request, self._limits, self._timing)
        model = self._models.find(request.spec.model, "spec.model")
        offers = self._roster.connected()
        began = time.perf_counter()
        try:
            admitted = admit(request.spec, model, offers)
        finally:
            self._facts.tell(Compiled(time.perf_counter() - began))
        check_length(admitted.spec, self._limits)
        check_size(admitted.spec, self._limits)
        why = why_none_matches(admitted.requirement, offers)
        if why is not None and not request.queue_without_executor:
            raise CallRefused(
                grpc.StatusCode.FAILED_PRECONDITION,
                ErrorReason.NO_MATCHING_EXECUTOR,
                f"{why}; queue_without_executor would queue it nevertheless",
            )
        hint = reload_hint(admitted.requirement, offers)
        if hint is not None:
            admitted.diagnostics.extend(diagnostics_to_proto([hint]))
        return admitted

    def create(
        self,
        request: generation_pb2.CreateGenerationRequest,
        owner: str,
        ends_by: float = math.inf,
    ) -> tuple[str, Sequence[planner_pb2.Diagnostic]]:
        """The id of the generation, new or made by an earlier request of the same id.

        ``ends_by``: when the call ends that the work is for, in seconds since the epoch.
        """
        digest = hashlib.sha256(request.spec.SerializeToString(deterministic=True)).digest()
        earlier = self._store.request(owner, request.request_id) if request.request_id else None
        if earlier is not None:
            return self._repeated(request.request_id, *earlier, digest)
        self._shutdown.refuse_if_begun()
        admitted = self.admit(request)
        self._check_room(owner)
        if request.HasField("deadline"):
            ends_by = min(ends_by, seconds(request.deadline) or math.inf)
        new = NewGeneration(
            generation=new_id(),
            request_id=request.request_id,
            request_digest=digest,
            needs=Needs(
                admitted.requirement.key,
                admitted.requirement.model,
                admitted.requirement.to_proto(),
            ),
            spec=admitted.spec,
            plan=admitted.plan,
            diagnostics=tuple(admitted.diagnostics),
            queue_deadline=time.time() + self._timing.max_queue_seconds,
            owner=owner,
            priority=request.priority,
            deadline=None if math.isinf(ends_by) else ends_by,
            traceparent=self._traceparent(),
        )
        self._store.create(new)
        log.info(
            "generation_queued",
            generation=new.generation,
            plan_id=new.plan.plan_id,
            model=new.needs.model,
            **({"prompt": new.spec.prompt} if self._log_prompts else {}),
        )
        self._facts.tell(Created(new.generation, new.plan.plan_id, new.needs.model))
        self._settlement.work_arrived(new.needs.key)
        return new.generation, admitted.diagnostics

    def _check_room(self, owner: str) -> None:
        limits = self._limits
        why = ""
        if self._store.queue_length() >= limits.queue_length:
            why = f"{limits.queue_length} generations are queued already"
        elif self._store.queue_length(owner) >= limits.queue_per_client:
            why = f"{limits.queue_per_client} generations of this client are queued already"
        if why:
            raise CallRefused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                ErrorReason.QUEUE_FULL,
                why,
                retry_seconds=_QUEUE_FULL_RETRY_SECONDS,
            )
        shortage = self._retention.shortage()
        if shortage is not None:
            raise storage_full(shortage)

    def _repeated(
        self, request_id: str, generation: str, first_digest: bytes, digest: bytes
    ) -> tuple[str, Sequence[planner_pb2.Diagnostic]]:
        if digest != first_digest:
            raise CallRefused(
                grpc.StatusCode.ALREADY_EXISTS,
                ErrorReason.REQUEST_ID_REUSED,
                f"request_id {request_id!r} made generations/{generation} from another spec",
            )
        planned = self._store.events(generation, after=0, limit=1)[0].planned
        return generation, planned.diagnostics
