"""Training a generator and sampling from it, here or on several workers of Ray."""
