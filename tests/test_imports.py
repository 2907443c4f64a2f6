"""The import rule: who may know whom, and what the API does without."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_import_contracts_hold():
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("package", ["nas.costs", "search_spaces", "nas.pareto", "nas.recipe"])
def test_the_core_loads_without_any_framework(package):
    code = (
        "import sys\n"
        f"import {package}\n"
        "loaded = {'torch', 'ray', 'fastapi', 'sqlalchemy', 'optuna'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
