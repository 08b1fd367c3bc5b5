"""Every number and place that the service can be started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from planner.compile.request import MAX_FRAMES, MAX_STEPS

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Timing:
    """Bounds on waiting, in seconds."""

    # A SIGKILLed executor is acted on within two seconds: this, and the time to notice.
    broken_stream_grace: float = 1.0
    lease_ttl: float = 10.0
    # For an executor to attach to a new lease.
    attach_window: float = 5.0
    # For executors to attach again to a restarted planner. Behind a service they reach it only once
    # its readiness was probed (every 5 s) and they have dialled again, the last time too early.
    restart_window: float = 30.0
    cancel_window: float = 5.0
    # Without a step for so long, an executor is stuck, however well it sends heartbeats.
    max_step_seconds: float = 1800.0
    # On top of it before the first step of a run for which an executor loads its model anew.
    max_reload_seconds: float = 1800.0
    # How long newer work may overtake work for which an executor would load its model anew, and how
    # long it keeps what it loaded while that has work.
    reload_patience: float = 60.0
    # How long an executor counts as connected after its last call.
    connected_grace: float = 3.0
    # After a start, until no executor has to load its model anew for want of one that is yet to
    # come back: they dial at least every 5 s.
    return_window: float = 6.0
    max_queue_seconds: float = 3600.0
    max_acquire_wait: float = 60.0
    # Of the deadline that a client may set.
    max_deadline: float = 30 * 86400.0
    # How long an ended generation and its artifacts are kept; 0: for ever. Its events in between
    # are kept for a shorter while.
    retain: float = 7 * 86400.0
    keep_events: float = 3600.0
    retention_interval: float = 5.0
    stop_grace: float = 5.0
    # For a peer to take the next message of a stream.
    stalled_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a peer may send or store."""

    message_bytes: int = 8 << 20
    prompt_bytes: int = 16 << 10
    program_bytes: int = 1 << 20
    # An executor must not die of one run: its memory grows with the pixels, those of all frames
    # of a film together. Enough for 129 frames of 720 x 1280.
    pixels: int = 4 << 20
    film_pixels: int = 128 << 20
    frames: int = MAX_FRAMES
    steps: int = MAX_STEPS
    # Of the pictures that a run starts from: bytes of all, pixels of each.
    picture_bytes: int = 6 << 20
    input_pixels: int = 64 << 20
    name_bytes: int = 512
    request_id_bytes: int = 128
    page_size: int = 1000
    queue_length: int = 1000
    queue_per_client: int = 1000
    priority: int = 100
    # Open at a time, of one identity; where there are no tokens, of everyone together.
    streams_per_client: int = 2000
    attempts: int = 3
    artifacts: int = 16
    artifact_bytes: int = 1 << 30
    chunk_bytes: int = 1 << 20
    # Of database and artifacts together; 0: as much as the disk has.
    data_bytes: int = 0
    # On the disk, for the work that runs: nothing new is accepted below it.
    free_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Security:
    """Who is let in, and how. Without ``tokens`` everyone may do everything.

    ``certificate`` and ``key`` ask for TLS, ``client_ca`` has clients show a certificate, too.
    Without TLS only this machine can dial, unless ``insecure``. ``health_listen`` takes health
    checks in plaintext.
    """

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    tokens: Path | None = None
    insecure: bool = False
    health_listen: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """How a planner or a replica of it listens. ``listen`` takes port 0 for any free one.

    A model may be named by its directory only below one of ``model_roots``. ``metrics_listen``:
    where Prometheus finds metrics; "": nowhere. ``log_level`` is one of `LOG_LEVELS`.
    """

    listen: str = "127.0.0.1:7330"
    model_roots: tuple[Path, ...] = ()
    timing: Timing = field(default_factory=Timing)
    limits: Limits = field(default_factory=Limits)
    security: Security = field(default_factory=Security)
    metrics_listen: str = ""
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class Settings(ListenerSettings):
    """How a planner runs. ``data`` holds the database and the artifacts.

    ``scaler_listen``: where KEDA asks how much work there is, in plaintext; None: nowhere. Prompts
    are logged only with ``log_prompts``.
    """

    data: Path
    scaler_listen: str | None = None
    log_prompts: bool = False
