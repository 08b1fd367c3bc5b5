"""What is seen of an executor from outside: metrics and traces, each only where asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from ditplan.common.metrics_port import MetricsPort
from ditplan.common.tracing import NoTracesError, tracing

from executor.agent.settings import Settings
from executor.agent.telemetry.facts import Facts

if TYPE_CHECKING:
    from executor.agent.telemetry.traces import Traces


class Telemetry:
    """For as long as it is entered, ``facts`` are counted and traced as the settings say."""

    def __init__(self, settings: Settings, metrics_listen: str) -> None:
        """``metrics_listen`` "": no metrics.

        Raises:
            ditplan.common.metrics_port.CannotListenError: not possible there.
        """
        self.facts = Facts()
        self._port: MetricsPort | None = None
        self._traces: Traces | None = None
        log = settings.log()
        if metrics_listen:
            from executor.agent.telemetry.metrics import Metrics

            metrics = Metrics(settings.seat.local_rank)
            self.facts.listen(metrics.hear)
            self._port = MetricsPort(metrics_listen, metrics.registry)
            log.info("metrics_listening", address=self._port.address)
        try:
            asked = tracing("ditplan-executor", os.environ)
        except NoTracesError as error:
            log.warning("traces_missing", reason=str(error))
            return
        if asked is not None:
            from executor.agent.telemetry.traces import Traces

            self._traces = Traces(asked, settings.name)
            self.facts.listen(self._traces.hear)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._port is not None:
            self._port.close()
        if self._traces is not None:
            self._traces.close()
