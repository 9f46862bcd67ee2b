"""The classifier as an MLflow model, logged as code: MLflow runs this file when it loads the model."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from serve.pictures import from_value
from serve.session import Classifier


class TumourClassifier(PythonModel):
    """Pictures in, one row of scores a picture out; a picture that can't be read costs its own row only."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the ONNX file among the model's artifacts."""
        self.classifier = Classifier.load(Path(context.artifacts["onnx"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score pictures.

        Args:
            context: given by MLflow.
            model_input: a column `image` whose cells are a file's bytes, its base64, or raw pixels (height, width).
            params: none are known.

        Returns:
            label, p_<class> for each class, confidence, abstain, reason, with the input's index.
        """
        pictures = (from_value(cell, f"row {number}") for number, cell in enumerate(model_input["image"]))
        names = ["label", *(f"p_{name}" for name in self.classifier.classes), "confidence", "abstain", "reason"]
        table = pd.DataFrame(list(self.classifier.rows(pictures)), columns=names, index=model_input.index)
        # MLflow's server writes NaN as it is, which is no JSON, but None as null
        return table if table["label"].notna().all() else table.astype(object).where(table.notna(), None)


mlflow.models.set_model(TumourClassifier())
