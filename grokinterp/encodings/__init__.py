"""Encodings: how a model holds what it has learned: Fisher information of its weights."""
