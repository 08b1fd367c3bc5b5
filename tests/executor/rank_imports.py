"""What a process of the rank farm has imported before it becomes a rank."""

from executor.placement.quiet import silence_libraries

silence_libraries()

import diffusers  # noqa: E402, F401
import torch.distributed  # noqa: E402, F401
import transformers  # noqa: E402, F401

import executor.engine.run  # noqa: E402
import executor.parallel.mesh  # noqa: E402, F401
import tests.executor.engine.tiny_transformers  # noqa: E402
import tests.executor.parallel.tiny_forwards  # noqa: E402, F401
