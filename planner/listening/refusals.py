"""Turns what a call raises into the status that its client gets."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NoReturn

import grpc
import structlog

from planner.errors import DETAILS_KEY, CallRefused, internal, status_of, storage_full
from planner.store.values import StorageFullError

_REQUEST_ID = "x-request-id"
_MAX_REQUEST_ID = 128
_ABORT_SECONDS = 5.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def refusals(method: str, context: Any) -> AsyncIterator[None]:
    """Ends a call with the status of what is raised inside, for a bounded time; logs it.

    What logs name of the call is bound inside.
    """
    request_id = _request_id(context)
    bound = {"request_id": request_id} if request_id else {}
    with structlog.contextvars.bound_contextvars(**bound):
        try:
            with _storage_refusals():
                yield
        except CallRefused as refused:
            log.info(
                "call_refused",
                method=method,
                code=refused.code.name,
                reason=refused.reason.value,
            )
            _release(refused)
            await _abort(context, refused)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            log.exception("call_failed", method=method)
            _release(error)
            await _abort(context, internal())


def _release(error: Exception) -> None:
    """Has an error let go of the requests that its call was made with.

    gRPC keeps it in a cycle with the call, until the garbage collector comes by, which does not
    know how large requests are: refusing large ones would take more and more memory.
    """
    traceback.clear_frames(error.__traceback__)


@contextmanager
def _storage_refusals() -> Iterator[None]:
    try:
        yield
    except StorageFullError as full:
        raise storage_full(str(full)) from full


async def _abort(context: Any, refused: CallRefused) -> None:
    status = status_of(refused)
    details = ((DETAILS_KEY, status.SerializeToString()),)
    await end_call(context, refused.code, status.message, details)


async def end_call(
    context: Any, code: grpc.StatusCode, message: str, trailers: Sequence[tuple[str, str | bytes]]
) -> NoReturn:
    """Ends it with this status; `grpc.aio.AbortError` leaves its handler."""
    try:
        async with asyncio.timeout(_ABORT_SECONDS):
            await context.abort(code, message, tuple(trailers))
    except TimeoutError:
        # It waits, behind what a peer does not read, in gRPC's hands.
        pass
    raise grpc.aio.AbortError(message)


def _request_id(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == _REQUEST_ID and isinstance(value, str):
            return value[:_MAX_REQUEST_ID]
    return ""
