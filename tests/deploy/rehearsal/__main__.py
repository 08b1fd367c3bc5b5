"""One scenario, to be run as the first process of namespaces of its own."""

from __future__ import annotations

import signal
import sys

from tests.deploy.rehearsal.scenarios import SCENARIOS

if __name__ == "__main__":
    # The first process of a namespace has no default.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    SCENARIOS[sys.argv[1]]()
    print("ok")
