"""Pictures of a sweep: phase diagrams, scaling with a key, the page with its table."""
