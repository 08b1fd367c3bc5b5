"""The gRPC services: preview, generations, and dispatch to the executors that dial in."""
