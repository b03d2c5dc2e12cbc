"""Live experiments: configuration, assignment, exposures and outcomes, sequential analysis, decision.

A plain library: it knows nothing about flows, models or audio. Modules are imported by name; each says what it
does and does not know.
"""
