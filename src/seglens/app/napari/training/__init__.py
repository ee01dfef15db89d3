"""Training a model from the viewer: one small dock."""
