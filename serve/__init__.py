"""Scoring with an exported classifier: needs ONNX Runtime, never torch."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is loaded; else it reports to Microsoft
