"""The classes that are made of a contract, as a type checker sees them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel_client import types

SRC = Path(__file__).parent.parent / "src"

PROGRAM = """
from datetime import date, datetime, timezone
from decimal import Decimal
from uuid import UUID

import numpy
from model import Rows

client = Rows("unix:/nowhere", model_version="1")
array = numpy.zeros(3, dtype=numpy.float32)
id = client.log_prediction(
    entity={"customer": "c"},
    features={
        "flag": True, "small": 1, "large": numpy.int64(5), "single": array[0], "exact": 1.5, "amount": Decimal("1.5"),
        "name": None, "raw": b"x", "day": date(2013, 1, 1), "at": datetime.now(timezone.utc), "ref": UUID(int=1),
        "vector": array, "doubles": [1.0, 2.0],
    },
    prediction={"score": 0.5},
    decision={"action": "none"},
)
client.log_outcome(id, {"good": True, "refunds": 3}, outcome_id="o")
client.log_prediction(entity={}, features={"small": "text"}, prediction={"score": 0.5})  # wrong type
client.log_prediction(entity={}, features={"smal": 1}, prediction={"score": 0.5})  # unknown field
client.log_prediction(entity={}, features={}, prediction={})  # missing field
client.log_prediction(entity={}, features={"doubles": ["x"]}, prediction={"score": 0.5})  # wrong item
client.log_prediction(entity={}, prediction={"score": 0.5})  # no features
client.log_outcome(id, {"better": True})  # unknown label
client.log_outcome(id, {"good": None})  # a label is never null
"""


def make(*arguments):
    command = [sys.executable, "-m", "flywheel_client.types", *arguments]
    path = os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)


@pytest.mark.parametrize("source", ["url", "http_url"])
def test_mypy_sees_what_the_contract_says(sidecar, tmp_path, source):
    made = make("rows", "--from", getattr(sidecar, source))
    assert made.returncode == 0, made.stderr
    if source == "http_url":
        assert made.stdout == make("rows", "--from", sidecar.url).stdout
        return
    (tmp_path / "model.py").write_text(made.stdout)
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", os.devnull, "program.py"]
    path = os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")])
    said = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(SRC), "PYTHONPATH": path}, capture_output=True, text=True
    )
    lines = PROGRAM.splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "  # " in line}
    found = {int(number) for number in re.findall(r"^program\.py:(\d+): error", said.stdout, re.MULTILINE)}
    assert found == wrong, said.stdout + said.stderr
    assert "model.py" not in said.stdout
    # It runs as well.
    namespace = {}
    exec(made.stdout, namespace)
    with namespace["Rows"]("unix:/nowhere") as client:
        assert client._model == "rows"


def test_names_that_are_words_of_python(tmp_path):
    block = {"type": "object", "required": ["class"], "properties": {"class": {"type": "string"}, "from": {"type": "number"}}}
    plain = {"type": "object", "properties": {}}
    schemas = {
        "m_prediction": {"properties": {"entity": plain, "features": block, "prediction": plain}},
        "m_outcome": {"properties": {"labels": {"oneOf": [plain, {"type": "array"}]}}},
    }
    namespace = {}
    exec(types.generate({"components": {"schemas": schemas}}, "m"), namespace)
    assert namespace["MFeatures"].__required_keys__ == {"class"}
    assert namespace["MFeatures"].__optional_keys__ == {"from"}


def test_it_says_what_is_wrong(sidecar, tmp_path):
    unknown = make("nothing", "--from", sidecar.url)
    assert unknown.returncode == 1 and "it has: rows" in unknown.stderr
    absent = make("rows", "--from", f"unix:{tmp_path}/none")
    assert absent.returncode == 1 and "No such file" in absent.stderr
    (tmp_path / "other.json").write_text("[]")
    other = make("rows", "--from", str(tmp_path / "other.json"))
    assert other.returncode == 1 and "no OpenAPI document" in other.stderr
