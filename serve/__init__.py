"""Scoring with an exported classifier: needs ONNX Runtime, never torch."""
