"""The same model behind BentoML, for benchmarks/serving.py: CLASSIFIER=FILE bentoml serve serving_bentoml:Scores."""

import os
from pathlib import Path
from typing import Any

import bentoml

from serve.pictures import from_value
from serve.session import Classifier
from sslbt.cores import cores


@bentoml.service(workers=cores())
class Scores:
    """Decodes and scores with the classes that our service uses; a file comes as base64."""

    def __init__(self) -> None:
        self.classifier = Classifier.load(Path(os.environ["CLASSIFIER"]))

    @bentoml.api(route="/predict")
    def predict(self, image: str) -> dict[str, Any]:
        return next(self.classifier.rows([from_value(image, "image")]))
