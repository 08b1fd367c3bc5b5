"""One RunLease call: reports come up, a cancel may go down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
from ditplan.dispatch.v1 import dispatch_pb2

from planner.dispatch.dispatcher import Dispatcher, stale
from planner.dispatch.sessions import Session
from planner.dispatch.shutdown import Shutdown
from planner.errors import CallRefused, ErrorReason, Violation, invalid
from planner.store.values import StaleLeaseError, StorageFullError


async def first_attach(
    requests: AsyncIterator[dispatch_pb2.RunLeaseRequest], seconds: float
) -> dispatch_pb2.Attach:
    """The message that opens a stream; INVALID_ARGUMENT where something else came first."""
    try:
        async with asyncio.timeout(seconds):
            request = await anext(requests, None)
    except TimeoutError:
        raise CallRefused(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            ErrorReason.INVALID_REQUEST,
            f"nothing came within {seconds:g} s",
        ) from None
    if request is None or request.WhichOneof("message") != "attach":
        raise invalid([Violation("attach", "must be the first message of the stream")])
    return request.attach


async def follow(
    dispatcher: Dispatcher,
    shutdown: Shutdown,
    session: Session,
    requests: AsyncIterator[dispatch_pb2.RunLeaseRequest],
) -> AsyncGenerator[dispatch_pb2.RunLeaseResponse, None]:
    """Takes reports in and yields what the executor must hear, until the run is settled.

    Returns where the executor closed the stream; ABORTED where it lost the lease.
    """
    reader = asyncio.create_task(_read(dispatcher, session, requests))
    reader.add_done_callback(lambda _: session.changed.set())
    cancel_sent = False
    try:
        while True:
            # Every change sets the event, so this wait is bounded by the lease's own end.
            await session.changed.wait()
            session.changed.clear()
            if reader.done():
                reader.result()
            if session.settled:
                yield dispatch_pb2.RunLeaseResponse(done=dispatch_pb2.Done())
                return
            if session.fenced:
                raise stale()
            if reader.done():
                return
            shutdown.refuse_if_begun()
            if session.cancel_reason is not None and not cancel_sent:
                cancel_sent = True
                cancel = dispatch_pb2.Cancel(reason=session.cancel_reason)
                yield dispatch_pb2.RunLeaseResponse(cancel=cancel)
    finally:
        reader.cancel()
        await asyncio.wait([reader])


async def _read(
    dispatcher: Dispatcher,
    session: Session,
    requests: AsyncIterator[dispatch_pb2.RunLeaseRequest],
) -> None:
    async for request in requests:
        if session.fenced:
            return
        try:
            match request.WhichOneof("message"):
                case "step_reports":
                    dispatcher.report(session, request.step_reports.steps)
                case "heartbeat":
                    dispatcher.heartbeat(session)
                case "completion":
                    dispatcher.complete(session, request.completion)
                    return
                case "failure":
                    dispatcher.fail(session, request.failure)
                    return
                case other:
                    raise invalid([Violation(other or "message", "has no place in this stream")])
        except StaleLeaseError:
            raise stale() from None
        except StorageFullError:
            dispatcher.storage_failed()
            raise
