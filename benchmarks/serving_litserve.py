"""The same model behind LitServe, for benchmarks/serving.py: python serving_litserve.py PORT CLASSIFIER.onnx"""

import sys
from pathlib import Path
from typing import Any

import litserve

from serve.pictures import from_value
from serve.session import Classifier
from sslbt.cores import cores


class Api(litserve.LitAPI):
    """Decodes and scores with the classes that our service uses; a file comes as base64."""

    def setup(self, device: str) -> None:
        self.classifier = Classifier.load(Path(sys.argv[2]))

    def decode_request(self, request: dict[str, Any]) -> str:
        return request["image"]

    def predict(self, image: str) -> dict[str, Any]:
        return next(self.classifier.rows([from_value(image, "image")]))

    def encode_response(self, row: dict[str, Any]) -> dict[str, Any]:
        return row


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=cores())
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
