import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["serve.app", "serve.session", "serve.batch"])
def test_scoring_needs_neither_torch_nor_mlflow(module):
    code = f"import sys, {module}; sys.exit(sorted({{'torch', 'mlflow'}} & sys.modules.keys()) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)
