"""Datasets: loaders, manifests and seeded generators."""
