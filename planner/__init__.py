"""The planner: compiles, queues and streams plans. Runs on a CPU and never imports torch."""
