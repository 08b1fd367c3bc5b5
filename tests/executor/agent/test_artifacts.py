"""Results as files and as messages."""

from __future__ import annotations

import pytest
from ditplan.dispatch.v1.dispatch_pb2 import Lease

from executor.agent.artifacts import CHUNK_BYTES, ArtifactFile, upload_requests

LEASE = Lease(generation="generations/1", epoch=3)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_a_file_goes_up_in_chunks_behind_one_header(size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    requests = list(upload_requests(LEASE, ArtifactFile("a.bin", "x/y", data)))
    assert b"".join(request.data for request in requests) == data
    assert all(len(request.data) <= CHUNK_BYTES for request in requests)
    assert [request.HasField("header") for request in requests] == [True] + [False] * (
        len(requests) - 1
    )
    header = requests[0].header
    assert (header.lease, header.name, header.media_type) == (LEASE, "a.bin", "x/y")
