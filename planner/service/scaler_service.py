"""``externalscaler.ExternalScaler``: what KEDA asks to know how many executors there should be."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

from ditplan.keda import externalscaler_pb2 as keda
from ditplan.keda.externalscaler_pb2_grpc import ExternalScalerServicer

from planner.dispatch.notices import Notices, wait
from planner.dispatch.shutdown import Shutdown
from planner.errors import Violation, invalid
from planner.scaling.demand import demand
from planner.scaling.forecast import WORK_CHANGED, Forecast

METRIC = "queued-predicted-seconds"
_DEFAULT_TARGET = 60
_MOST_TARGET = 86_400
_MODEL, _TARGET = "model", "targetSeconds"
# KEDA hands on the whole metadata of a trigger, with what it needs itself.
_KEDAS_OWN = frozenset(
    {"scalerAddress", "enableTLS", "unsafeSsl", "tlsCertFile", "caCert", "tlsClientCert"}
    | {"tlsClientKey"}
)
_MOST_FAULTS = 10
_MOST_SHOWN = 80
# However often work comes and goes, a stream looks no more often.
_PAUSE_SECONDS = 0.25
_LOOK_AGAIN_SECONDS = 30.0


class _Asked(NamedTuple):
    """``model`` "": any. ``target``: seconds of work that an executor is meant to have."""

    model: str
    target: int


class ScalerService(ExternalScalerServicer):
    def __init__(self, forecast: Forecast, notices: Notices, shutdown: Shutdown) -> None:
        self._forecast = forecast
        self._notices = notices
        self._shutdown = shutdown

    async def IsActive(self, request: keda.ScaledObjectRef, context: Any) -> keda.IsActiveResponse:
        return keda.IsActiveResponse(result=self._forecast.of(_asked(request).model).active)

    async def StreamIsActive(
        self, request: keda.ScaledObjectRef, context: Any
    ) -> AsyncGenerator[keda.IsActiveResponse, None]:
        asked, told = _asked(request), None
        with self._notices.listen(WORK_CHANGED) as changed:
            while True:
                self._shutdown.refuse_if_begun()
                changed.clear()
                active = self._forecast.of(asked.model).active
                if active is not told:
                    told = active
                    yield keda.IsActiveResponse(result=active)
                await asyncio.sleep(_PAUSE_SECONDS)
                await wait(changed, _LOOK_AGAIN_SECONDS)

    async def GetMetricSpec(
        self, request: keda.ScaledObjectRef, context: Any
    ) -> keda.GetMetricSpecResponse:
        target = _asked(request).target
        spec = keda.MetricSpec(metricName=METRIC, targetSize=target, targetSizeFloat=target)
        return keda.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(
        self, request: keda.GetMetricsRequest, context: Any
    ) -> keda.GetMetricsResponse:
        if request.metricName != METRIC:
            text = f"{request.metricName!r} is not {METRIC}"
            raise invalid([Violation("metricName", text)])
        asked = _asked(request.scaledObjectRef, "scaledObjectRef.")
        seconds = demand(self._forecast.of(asked.model), asked.target)
        value = keda.MetricValue(
            metricName=METRIC, metricValue=math.ceil(seconds), metricValueFloat=seconds
        )
        return keda.GetMetricsResponse(metricValues=[value])


def _asked(reference: keda.ScaledObjectRef, prefix: str = "") -> _Asked:
    """Raises `planner.errors.CallRefused` for metadata that mean nothing."""
    metadata = reference.scalerMetadata
    faults = [
        Violation(
            f"{prefix}scalerMetadata.{key[:_MOST_SHOWN]}",
            f"not known; {_MODEL} and {_TARGET} are, both optional",
        )
        for key in sorted(metadata.keys() - _KEDAS_OWN - {_MODEL, _TARGET})[:_MOST_FAULTS]
    ]
    given = metadata.get(_TARGET, str(_DEFAULT_TARGET))
    is_number = given.isascii() and given.isdecimal() and len(given) <= len(str(_MOST_TARGET))
    target = int(given) if is_number else 0
    if not 1 <= target <= _MOST_TARGET:
        text = f"{given[:_MOST_SHOWN]!r} is no whole number of seconds from 1 to {_MOST_TARGET}"
        faults.append(Violation(f"{prefix}scalerMetadata.{_TARGET}", text))
    if faults:
        raise invalid(faults)
    return _Asked(metadata.get(_MODEL, ""), target)
