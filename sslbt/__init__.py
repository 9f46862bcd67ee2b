"""Self-supervised learning for brain tumour classification from few labelled MRI slices."""

import os

__version__ = "0.1.0"

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before ONNX Runtime is loaded; else it reports to Microsoft
