"""Every call to MLflow."""

import logging
import os
import warnings

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
warnings.filterwarnings("ignore", module="mlflow")
for noisy in ("alembic", "mlflow.projects", "mlflow.tracking.fluent"):
    logging.getLogger(noisy).setLevel(logging.WARNING)
# A store that fails fails the step too, which says so in a sentence; these print tracebacks before it.
for noisy in ("mlflow.store.db.utils", "mlflow.system_metrics"):
    logging.getLogger(noisy).setLevel(logging.CRITICAL)
