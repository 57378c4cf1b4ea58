"""Classes with the types of a contract, for mypy and pyright: made from the OpenAPI document of a sidecar.

    python -m flywheel_client.types flight_delay --from unix:/run/flywheel/sidecar.sock > flight_delay.py
    flywheel-schemas show openapi flight_delay.yaml | python -m flywheel_client.types flight_delay --from - > flight_delay.py

The module has one TypedDict per block of the contract and a class for the model, whose methods take them:

    from flight_delay import FlightDelay
    client = FlightDelay("unix:/run/flywheel/sidecar.sock", model_version="7")

They cost nothing while the model runs: what a dict holds is looked at by the type checker, and by the sidecar.
"""

import argparse
import http.client
import json
import keyword
import socket
import sys
from typing import Any

from .connection import Address

# (block, suffix of its class), in the order of the parameters of `Client`.
_BLOCKS = (
    ("entity", "Entity"),
    ("features", "Features"),
    ("prediction", "Prediction"),
    ("decision", "Decision"),
    ("context", "Context"),
)
_FETCH_WITHIN_S = 10.0

_HEAD = '''"""The types of the model {model}. Made by `python -m flywheel_client.types {model}`; do not edit."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol, TypedDict, TypeVar, Union
from uuid import UUID

from flywheel_client import Client

_T = TypeVar("_T", covariant=True)


class _Scalar(Protocol[_T]):
    """A scalar of NumPy."""

    def item(self) -> _T: ...


class _Array(Protocol):
    """An array of NumPy."""

    def tolist(self) -> object: ...


# What is not used is a contract's affair: these stand here for all.
_Boolean = Union[bool, _Scalar[bool]]
_Integer = Union[int, _Scalar[int]]
_Number = Union[float, _Scalar[float]]
_Text = str
_Decimal = Union[Decimal, str]
_Bytes = Union[bytes, str]
_Date = Union[date, str]
_Timestamp = Union[datetime, int, str]
_Uuid = Union[UUID, str]
'''


def fetch(source: str) -> "dict[str, Any]":
    """The OpenAPI document of a sidecar (`unix:PATH`, `http://HOST:PORT`), of a file or, for `-`, of standard input."""
    if source == "-":
        document = json.load(sys.stdin)
    elif source.startswith(("unix:", "http:")):
        address = Address.parse(source)

        class Local(http.client.HTTPConnection):
            def connect(self) -> None:
                self.sock: socket.socket = address.connect()
                self.sock.settimeout(_FETCH_WITHIN_S)

        connection = Local("sidecar")
        try:
            connection.request("GET", "/openapi.json")
            answer = connection.getresponse()
            if answer.status != 200:
                raise ValueError(f"{source} answers {answer.status} to GET /openapi.json")
            document = json.load(answer)
        finally:
            connection.close()
    else:
        with open(source, encoding="utf-8") as file:
            document = json.load(file)
    if not isinstance(document, dict) or "components" not in document:
        raise ValueError(f"{source} has no OpenAPI document of a sidecar")
    return document


def generate(document: "dict[str, Any]", model: str) -> str:
    """The text of the module. ValueError where the document has no such model."""
    schemas = document["components"]["schemas"]
    if f"{model}_prediction" not in schemas:
        known = sorted(name.removesuffix("_prediction") for name in schemas if name.endswith("_prediction"))
        raise ValueError(f"no model {model} in the document; it has: {', '.join(known)}")
    name = "".join(part.capitalize() for part in model.split("_"))
    prediction, outcome = schemas[f"{model}_prediction"]["properties"], schemas[f"{model}_outcome"]["properties"]
    parts, parameters = [_HEAD.format(model=model)], []
    for block, suffix in _BLOCKS:
        schema = prediction.get(block) or {}
        parts.append(_block(f"{name}{suffix}", schema.get("properties", {}), set(schema.get("required", ()))))
        parameters.append(f"{name}{suffix}")
    # A statement is about some of the labels.
    parts.append(_block(f"{name}Labels", _labels(outcome["labels"]), set()))
    parameters.append(f"{name}Labels")
    lines = "".join(f"        {parameter},\n" for parameter in parameters)
    parts.append(f'\n\nclass {name}(\n    Client[\n{lines}    ]\n):\n    MODEL = "{model}"\n')
    return "".join(parts)


def _labels(schema: "dict[str, Any]") -> "dict[str, Any]":
    """The properties of the object form; the other form is the array of a retract."""
    for form in schema.get("oneOf", [schema]):
        if "properties" in form:
            found: "dict[str, Any]" = form["properties"]
            return found
    return {}


def _block(name: str, properties: "dict[str, Any]", required: "set[str]") -> str:
    needed = {field: schema for field, schema in properties.items() if field in required}
    others = {field: schema for field, schema in properties.items() if field not in required}
    if not needed:
        return _dict(name, others, is_total=False)
    if not others:
        return _dict(name, needed, is_total=True)
    # Python 3.10 has no NotRequired.
    return (
        _dict(f"_{name}Required", needed, is_total=True)
        + _dict(f"_{name}Optional", others, is_total=False)
        + f"\n\nclass {name}(_{name}Required, _{name}Optional):\n    pass\n"
    )


def _dict(name: str, properties: "dict[str, Any]", is_total: bool) -> str:
    total = "" if is_total else ", total=False"
    if any(map(keyword.iskeyword, properties)):
        fields = ", ".join(f'"{field}": {_annotation(schema)}' for field, schema in properties.items())
        return f'\n\n{name} = TypedDict("{name}", {{{fields}}}{total})\n'
    lines = []
    for field, schema in properties.items():
        lines.append(f"    {field}: {_annotation(schema)}\n")
        if description := schema.get("description"):
            # A string of JSON is one of Python too.
            lines.append(f"    {json.dumps(description, ensure_ascii=False)}\n")
    return f"\n\nclass {name}(TypedDict{total}):\n" + ("".join(lines) or "    pass\n")


def _annotation(schema: "dict[str, Any]") -> str:
    forms = schema.get("oneOf", [])
    if any(form.get("type") == "null" for form in forms):
        value = next(form for form in forms if form.get("type") != "null")
        return f"Union[{_annotation(value)}, None]"
    if any(form.get("format") == "date-time" for form in forms):
        return "_Timestamp"
    kind, form = schema.get("type"), schema.get("format")
    if kind == "array":
        return f"Union[Sequence[{_annotation(schema['items'])}], _Array]"
    if kind == "string":
        if schema.get("contentEncoding") == "base64":
            return "_Bytes"
        if form in ("date", "uuid"):
            return f"_{form.capitalize()}"
        # The one text whose form the contract knows is that of a decimal.
        return "_Decimal" if "pattern" in schema else "_Text"
    named = {"boolean": "_Boolean", "integer": "_Integer", "number": "_Number"}
    if kind not in named:
        raise ValueError(f"the document has a type that this version does not know: {schema}")
    return named[kind]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flywheel_client.types", description="Types of a contract")
    parser.add_argument("model")
    parser.add_argument(
        "--from",
        dest="source",
        default="http://127.0.0.1:8700",
        help="a sidecar (unix:PATH, http://HOST:PORT), a file with its OpenAPI document, or - for standard input",
    )
    arguments = parser.parse_args()
    try:
        text = generate(fetch(arguments.source), arguments.model)
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
