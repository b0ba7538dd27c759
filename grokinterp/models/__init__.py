"""Models: their shape and weights, the TransformerLens adapter, and the fast forward."""
