"""The parts of ``flows.server``: what is on record, the process, and the few questions asked over HTTP.

None of them imports Prefect or knows about flows. Linux and macOS.
"""
