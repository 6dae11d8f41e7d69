"""The differentiable operations: one folder each, one file a way to compute it."""
