"""Forgetting: people who asked for it, and rows whose time is over.

What belongs here: what is taken out of which table and file, the list that keeps it out when landing files are read again, and a
ledger that agrees with what is left. What does not: who may be addressed (exports/), or how bytes reach disk (warehouse/).
Modules are imported by name: `marks` and `people` are read by sources and cleaning, `erase` and `expire` rest on everything.
"""
