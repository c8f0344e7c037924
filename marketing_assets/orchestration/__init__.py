"""The only place that imports Dagster: when what runs, in which order, and what people see of it in the UI.

What belongs here: assets, checks, partitions, resources, jobs, schedules, sensors, one file per noun. What does not: computing
anything (the concept modules), or deciding what is missing or stale (running.py, from the ledger).
"""

import gc

# libraries and expressions make objects by the million that stay: to look for waste among them every 700 takes a tenth of a start
gc.set_threshold(100_000, 20, 20)
