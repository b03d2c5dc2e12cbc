"""Audio models side by side: run, check, compare, remember.

A plain Python library. It never imports Prefect; ``flows`` and ``tasks`` build
the execution plans on top of it. Only ``grym.models`` imports torch, and only
inside a worker process.
"""

__version__ = "0.1.0"
