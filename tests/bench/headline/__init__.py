"""Quality against speed on the demo model: ditplan, cache-dit, and simply fewer steps."""

import sys
from pathlib import Path

DEMO = Path(__file__).parents[3] / "deploy" / "demo"

# The demo's `training` knows its prompts and judges its pictures; it is run from its own folder.
if str(DEMO) not in sys.path:
    sys.path.append(str(DEMO))
