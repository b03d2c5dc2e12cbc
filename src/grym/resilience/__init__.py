"""What happens when models fail: recovery, circuit breakers, health, failover. See ``docs/resilience.md``."""
