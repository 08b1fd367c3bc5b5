"""Draws a picture with a ditplan planner; needs grpcio, googleapis-common-protos and proto/ditplan.

    PYTHONPATH=proto python generate.py HOST:PORT MODEL PROMPT OUT

Paste what you need. Every call may be repeated: the request id makes the creation idempotent, a
watch goes on behind the last event seen, a download behind the last byte.
"""

import hashlib
import sys
import time
import uuid

import grpc
from ditplan.v1 import generation_pb2 as pb
from ditplan.v1 import generation_pb2_grpc
from google.rpc import error_details_pb2, status_pb2

FAILURES, PAUSE_SECONDS, CALL_SECONDS = 60, 0.5, 10
PASSING = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


def details(error):
    """What the planner says of a refusal: its stable reason, and every fault of the request."""
    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(raw).details:
        detail.Unpack(info) or detail.Unpack(bad)
    return info.reason, [(fault.field, fault.description) for fault in bad.field_violations]


def repeated(call):
    """The call's result; while the planner is away or full the call is tried again."""
    failures = 0
    while True:
        began = time.monotonic()
        try:
            return call()
        except grpc.RpcError as error:
            # One that went on for a while was well until then.
            failures = 1 if time.monotonic() - began > CALL_SECONDS else failures + 1
            if error.code() not in PASSING or failures > FAILURES:
                raise
            time.sleep(PAUSE_SECONDS)


def finished(stub, generation):
    """Watches the generation to its end."""
    last = pb.GenerationEvent()

    def watch():
        nonlocal last
        request = pb.WatchGenerationRequest(name=generation.name, after_sequence=last.sequence)
        for response in stub.WatchGeneration(request):
            last = response.event
            if last.HasField("step"):
                print(f"step {last.step.step}: {last.step.milliseconds:.0f} ms", flush=True)

    repeated(watch)
    return last.finished


def download(stub, generation, artifact):
    data = bytearray()

    def read():
        name = f"{generation.name}/artifacts/{artifact.name}"
        request = pb.ReadArtifactRequest(name=name, offset=len(data))
        for response in stub.ReadArtifact(request):
            data.extend(response.data)

    repeated(read)
    assert hashlib.sha256(data).hexdigest() == artifact.sha256, "damaged on the way"
    return data


def main(address, model, prompt, out):
    # With TLS and a token: grpc.secure_channel(address, grpc.ssl_channel_credentials(ca_pem)), and
    # metadata=[("authorization", f"Bearer {token}")] in every call.
    stub = generation_pb2_grpc.GenerationServiceStub(grpc.insecure_channel(address))
    spec = pb.GenerationSpec(model=model, prompt=prompt, num_inference_steps=4, seed=1)
    request = pb.CreateGenerationRequest(request_id=str(uuid.uuid4()), spec=spec)
    try:
        made = repeated(lambda: stub.CreateGeneration(request, timeout=CALL_SECONDS)).generation
        done = finished(stub, made)
        if done.state != pb.GENERATION_STATE_SUCCEEDED:
            sys.exit(f"{done.failure.code}: {done.failure.message}")
        with open(out, "wb") as file:
            file.write(download(stub, done, done.artifacts[0]))
    except grpc.RpcError as error:
        reason, faults = details(error)
        lines = [f"{error.code().name} ({reason}): {error.details()}"]
        sys.exit("\n".join(lines + [f"  {field}: {text}" for field, text in faults]))
    print(f"{out}: {done.artifacts[0].media_type}, {len(done.record.steps)} steps")


if __name__ == "__main__":
    main(*sys.argv[1:])
