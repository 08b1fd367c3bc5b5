"""The external scalers' contract by the names and numbers that KEDA has."""

from __future__ import annotations

from ditplan.keda import externalscaler_pb2
from google.protobuf.descriptor import FieldDescriptor

# As of kedacore/keda, pkg/scalers/externalscaler/externalscaler.proto.
FIELDS = {
    "ScaledObjectRef": {"name": 1, "namespace": 2, "scalerMetadata": 3},
    "IsActiveResponse": {"result": 1},
    "GetMetricSpecResponse": {"metricSpecs": 1},
    "MetricSpec": {"metricName": 1, "targetSize": 2, "targetSizeFloat": 3},
    "GetMetricsRequest": {"scaledObjectRef": 1, "metricName": 2},
    "GetMetricsResponse": {"metricValues": 1},
    "MetricValue": {"metricName": 1, "metricValue": 2, "metricValueFloat": 3},
}
METHODS = {
    "IsActive": ("ScaledObjectRef", "IsActiveResponse", False),
    "StreamIsActive": ("ScaledObjectRef", "IsActiveResponse", True),
    "GetMetricSpec": ("ScaledObjectRef", "GetMetricSpecResponse", False),
    "GetMetrics": ("GetMetricsRequest", "GetMetricsResponse", False),
}


def test_messages_are_those_of_keda() -> None:
    contract = externalscaler_pb2.DESCRIPTOR
    assert contract.package == "externalscaler"
    found = {
        name: {field.name: field.number for field in message.fields}
        for name, message in contract.message_types_by_name.items()
    }
    assert found == FIELDS
    for message in ("MetricSpec", "MetricValue"):
        _, whole, real = contract.message_types_by_name[message].fields
        assert (whole.type, real.type) == (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_DOUBLE)


def test_methods_are_those_of_keda() -> None:
    [service] = externalscaler_pb2.DESCRIPTOR.services_by_name.values()
    assert service.full_name == "externalscaler.ExternalScaler"
    found = {
        method.name: (method.input_type.name, method.output_type.name, method.server_streaming)
        for method in service.methods
    }
    assert found == METHODS
    assert not any(method.client_streaming for method in service.methods)
