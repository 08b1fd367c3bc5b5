"""Whether a call that ended early was given up, or had reached its deadline."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Self

# A client that ends its call at its deadline is heard up to this long before it, but no more than
# this part of the time that it gave.
_DEADLINE_SECONDS = 0.5
_DEADLINE_PART = 0.1
_LONGEST_CALL = 365 * 86400.0


@dataclass(frozen=True, slots=True)
class CallTime:
    """``seconds`` left when the call came, None where it has no deadline.

    ``ends_by``: that deadline in seconds since the epoch, else infinite.
    """

    seconds: float | None
    ends_by: float

    @classmethod
    def of(cls, context: Any) -> Self:
        remaining = context.time_remaining()
        # An endless deadline is told as a very large one, too.
        if remaining is None or remaining >= _LONGEST_CALL:
            return cls(None, math.inf)
        return cls(remaining, time.time() + remaining)

    def has_expired(self) -> bool:
        """Whether it is over, or so nearly that its end now is its deadline's."""
        if self.seconds is None:
            return False
        return time.time() >= self.ends_by - min(_DEADLINE_SECONDS, _DEADLINE_PART * self.seconds)
