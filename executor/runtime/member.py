"""One rank of several: does with its pipeline what rank 0 says."""

from __future__ import annotations

import queue
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

import torch
import torch.distributed as dist
from ditplan.runtime.v1.runtime_pb2 import Command, Connect, Prepare, Reload, Report
from structlog.typing import FilteringBoundLogger
from torch._C._distributed_c10d import PrefixStore, Store

from executor import codec
from executor.codec_placement import placement_from_reload
from executor.engine import run as engine
from executor.engine.program import Program, StepOutcome
from executor.parallel.mesh import World, connected
from executor.parallel.sharing import Sharing
from executor.parallel.vae import VAE
from executor.placement.load import LoadedPipeline
from executor.runtime.failures import describe
from executor.runtime.held import Held
from executor.runtime.holding import holding
from executor.runtime.ranks import accept
from executor.runtime.seat import Seat

# Stopped and ended processes are noticed by their lines; this is for what is left: a rank that
# lives and does not come. The planner gives a step as long.
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
# Every check of a run asks for a step that is not before it.
AT_ONCE = 0


class Member:
    """Takes commands in any thread and carries them out, one after the other, in that of `serve`.

    Args:
        answer: called with every report; must not wait.
        on_step: called with what each step did.
        on_check: called with every step that is about to be run on.
    """

    def __init__(
        self,
        held: Held,
        seat: Seat,
        store: Store,
        *,
        answer: Callable[[Report], None],
        log: FilteringBoundLogger,
        on_step: Callable[[StepOutcome], None] = lambda outcome: None,
        on_check: Callable[[int], None] = lambda step: None,
    ) -> None:
        self._held = held
        self._seat = seat
        self._store = store
        self._answer = answer
        self._log = self._run_log = log
        self._on_step = on_step
        self._on_check = on_check
        self._device = held.loaded.device
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._stop_before: int | None = None
        self._group = ExitStack()
        self._world: World | None = None
        self._prepared: tuple[Program, engine.RunSpec] | None = None
        self.result: engine.RunResult | None = None
        """Of the last run; None where it was cancelled."""

    def take(self, command: Command) -> None:
        """Heeds what concerns the current run at once and queues the rest."""
        kind = command.WhichOneof("command")
        if kind == "stop":
            self._stop_before = command.stop.before_step
            self._answer(Report(number=command.number))
        elif kind == "abort":
            self._stop_before = AT_ONCE
            if self._device.type == "cuda" and dist.is_initialized():
                # Its kernels would wait for the others for ever.
                dist.distributed_c10d._abort_process_group()
        else:
            if kind == "prepare":
                self._stop_before = None
            self._commands.put(command)

    def serve(self) -> None:
        """Carries out what is taken, without end."""
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
        while True:
            self._do(self._commands.get())

    def _do(self, command: Command) -> None:
        report = Report(number=command.number)
        try:
            match command.WhichOneof("command"):
                case "connect":
                    self._connect(command.connect)
                case "prepare":
                    self._prepare(command.prepare)
                case "run":
                    self._run()
                case "reload":
                    self._reload(command.reload)
                    report.holding.CopyFrom(holding(self._loaded, self._held.digest))
                case other:
                    raise AssertionError(f"{other} is no command to carry out")
        except Exception as error:
            report.failure.CopyFrom(describe(error))
            if not report.failure.by_peer:
                self._run_log.exception("rank_failed", code=report.failure.code)
            # Before the others lose this rank, so that what is told first is the cause.
            self._answer(report)
            if not command.HasField("prepare"):
                self._disconnect(error)
        else:
            self._answer(report)

    @property
    def _loaded(self) -> LoadedPipeline:
        return self._held.loaded

    def _reload(self, reload: Reload) -> None:
        self._disconnect(None)
        self._prepared = self.result = None
        self._held.reload(placement_from_reload(reload))

    def _connect(self, connect: Connect) -> None:
        self._run_log = self._log
        self._disconnect(None)
        store = PrefixStore(connect.place, self._store)
        self._world = self._group.enter_context(
            connected(store, self._seat.rank, self._seat.size, self._device, COLLECTIVE_TIMEOUT)
        )

    def _disconnect(self, error: Exception | None) -> None:
        """Leaves the group, which ends what the others wait for this rank in."""
        self._world = None
        if self._held.is_loaded:
            self._loaded.share.disconnect(self._loaded.pipeline)
        group, self._group = self._group, ExitStack()
        while error is not None:
            # Connections are closed only once no frame holds their group.
            traceback.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__  # type: ignore[assignment]
        try:
            group.close()
        except (AssertionError, ValueError):
            # An abort has taken it away already.
            if self._device.type != "cuda":
                raise
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _prepare(self, prepare: Prepare) -> None:
        self._run_log = self._log.bind(plan_id=prepare.plan_id)
        program = accept(self._loaded, prepare.plan_id, prepare.program)
        self._prepared = program, codec.spec_from_proto(prepare.spec)

    def _run(self) -> None:
        assert self._world is not None
        assert self._prepared is not None
        (program, spec), self._prepared, self.result = self._prepared, None, None
        mesh = self._world.mesh(program.topology)
        self._loaded.share.connect(self._loaded.pipeline, mesh)
        shares_decoding = VAE in program.topology.extra_parallel_modules
        try:
            self.result = engine.run(
                self._loaded.pipeline,
                program,
                spec,
                sharing=Sharing(self._world, program.topology),
                on_step=self._on_step,
                is_cancelled=self._is_stopped,
                decodes=self._seat.rank == 0 or shares_decoding,
                device=self._loaded.device,
            )
        except engine.RunCancelled:
            if self._stop_before == AT_ONCE:
                # Some rank may wait for this one.
                self._disconnect(None)

    def _is_stopped(self, step: int) -> bool:
        self._on_check(step)
        return self._stop_before is not None and step >= self._stop_before
