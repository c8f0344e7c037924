"""A marketing decision engine for online shops: from event exports to tomorrow's ad plan, and back."""

import os

# Before numpy is loaded. Its matrices here are small: a second thread spends more on waiting than it saves, and sums whose
# last bits depend on the machine's cores would let models differ between machines.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
