"""Execution plans, one verb per file. ``python -m flows VERB`` is the command line."""
