"""The port that Prometheus asks, against peers that are not Prometheus."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from ditplan.common import metrics_port
from ditplan.common.metrics_port import MetricsPort
from prometheus_client import CollectorRegistry, Gauge

from tests.planner.service.prometheus import scrape, value


def test_connections_on_which_nothing_comes_hold_no_thread_for_long(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics_port, "_IDLE_SECONDS", 0.5)
    registry = CollectorRegistry()
    Gauge("answers", "Whether.", registry=registry).set(1)
    before = threading.active_count()
    port = MetricsPort("127.0.0.1:0", registry)
    host, _, number = port.address.rpartition(":")
    try:
        idle = [socket.create_connection((host, int(number))) for _ in range(20)]
        idle[0].send(b"GET / HT")
        assert value(scrape(port.address), "answers") == 1
        deadline = time.monotonic() + 5
        while threading.active_count() > before + 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert [connection.recv(1) for connection in idle] == [b""] * 20
        assert value(scrape(port.address), "answers") == 1
    finally:
        for connection in idle:
            connection.close()
        port.close()
    assert capfd.readouterr().err == ""
