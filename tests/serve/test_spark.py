"""The registered model over Parquet on Spark: a driver and two executor processes give the local scorer's numbers."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from serve.batch import score
from serve.package import log_arguments
from sslbt.data.phantom import make_sample
from sslbt.tracking.models import RELEASED, onnx_file

EXECUTORS = 2


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster on this machine: each executor is a process of its own."""
    if shutil.which("java") is None:
        assert "SSLBT_NEVER_SKIP" not in os.environ, "Java is missing"
        pytest.skip("needs Java 17, Debian's package default-jre-headless")
    import pyspark
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_HOME", str(Path(pyspark.__file__).parent))
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.chdir(tmp_path_factory.mktemp("spark"))  # where executors keep their files
        builder = SparkSession.builder.master(f"local-cluster[{EXECUTORS},1,1024]").config("spark.ui.enabled", False)
        session = builder.config("spark.executor.memory", "1g").getOrCreate()
        yield session
        session.stop()


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices")
    make_sample(folder / "slices", patients=8, size=64)
    (folder / "slices" / "cvind.mat").unlink(missing_ok=True)
    (folder / "slices" / "99999.mat").write_bytes(b"not a slice at all")
    return folder / "slices"


def test_spark_gives_the_local_scorers_numbers(spark: Any, slices: Path, tmp_path: Path) -> None:
    from pyspark.sql.functions import spark_partition_id

    model = onnx_file(RELEASED)
    score(model, slices, tmp_path / "scores.csv")
    expected = pd.read_csv(tmp_path / "scores.csv").set_index("file").sort_index()

    files = sorted(slices.glob("*.mat"))
    frame = pd.DataFrame({"file": [path.name for path in files], "image": [path.read_bytes() for path in files]})
    frame.to_parquet(tmp_path / "slices.parquet")
    with log_arguments(model) as arguments:
        mlflow.pyfunc.save_model(tmp_path / "model", **arguments)
    predict = mlflow.pyfunc.spark_udf(spark, str(tmp_path / "model"), env_manager="local")
    asked = spark.read.parquet(str(tmp_path / "slices.parquet")).repartition(2 * EXECUTORS)
    scored = asked.withColumn("scores", predict("image")).withColumn("part", spark_partition_id())
    found = scored.select("file", "part", "scores.*").toPandas().set_index("file").sort_index()

    assert spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() == EXECUTORS + 1  # and the driver
    assert found.part.nunique() > 1
    assert list(found.index) == list(expected.index)
    names = [name for name in expected if name.startswith("p_")]
    np.testing.assert_allclose(found[[*names, "confidence"]], expected[[*names, "confidence"]], atol=1e-5)
    assert list(found.label) == list(expected.label.fillna("None"))  # so MLflow writes no text to Spark
    assert list(found.abstain) == list(expected.abstain)
    assert expected.label.isna().sum() == 1
    assert found.loc["99999.mat"].reason.startswith("row")
