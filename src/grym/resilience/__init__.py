"""What happens when models fail: recovery, circuit breakers, health, failover. See ``docs/resilience.md``.

Names are imported from the modules: ``grym.resilience.opening`` has what a program
needs to ask a route or check models.
"""
