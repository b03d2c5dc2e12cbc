"""Models: the interface, the registry and the adapters."""
