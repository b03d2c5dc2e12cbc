"""Prefect tasks, thin: one noun per file. ``policies`` holds every retry, tag, timeout and limit."""
