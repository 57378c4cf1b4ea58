"""From Python values to the JSON that the sidecar reads.

| Python | JSON |
|---|---|
| bool, int, str, None, list, tuple, dict, Mapping | as it is |
| float, NumPy floats | number with every bit; the tokens `NaN`, `Infinity`, `-Infinity` |
| NumPy integers, booleans, arrays | integer, `true`/`false`, array |
| Decimal | text without exponent |
| bytes, bytearray, memoryview | base64 |
| datetime with a time zone, NumPy datetime64 | integer microseconds since the epoch |
| date, datetime64[D] | `"2013-01-31"` |
| UUID | hyphenated text |
| NaT | null |

A NumPy float32 is written as the double of the same value, which is right for a `float` field and a `double` one.
"""

import base64
import math
import sys
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import orjson

from . import ids

_OPTION = orjson.OPT_PASSTHROUGH_DATETIME
_NAN = orjson.Fragment(b"NaN")
_INFINITY = orjson.Fragment(b"Infinity")
_MINUS_INFINITY = orjson.Fragment(b"-Infinity")


def encode(envelope: "dict[str, Any]") -> bytes:
    """The body of a row, on one line. Raises whatever a value that has no JSON form raises."""
    body: bytes = orjson.dumps(envelope, default=_plain, option=_OPTION)
    # orjson writes NaN as null, which is something else. Rows without any null are done here; those whose nulls are
    # all accounted for by None, a few lines further. The rest is looked through value by value.
    nulls = body.count(b"null")
    if nulls:
        for block in envelope.values():
            if block.__class__ is dict:
                nulls -= len([value for value in block.values() if value is None])
        if nulls:
            body = orjson.dumps(_spelt(envelope), default=_plain, option=_OPTION)
    return body


def faults(envelope: "dict[str, Any]") -> "list[dict[str, str]]":
    """Which values of an envelope that `encode` does not take are to blame: in the form of the sidecar's own faults."""
    found = []
    for key, block in envelope.items():
        members = block.items() if isinstance(block, Mapping) else [(None, block)]
        for name, value in members:
            try:
                encode({"value": value} if name is None else {"block": {name: value}})
            except Exception as error:  # a `__getattr__` or a NumPy extension may raise anything
                pointer = "/" + key if name is None else f"/{key}/{_escaped(name)}"
                found.append({"pointer": pointer, "reason": "not_serialisable", "detail": str(error)})
    return found


def _escaped(name: Any) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")


def _plain(value: Any) -> Any:
    """What stands for a value that JSON has no form for. Called by orjson for types that it does not know."""
    if isinstance(value, datetime):
        return ids.micros(value) if value == value else None  # NaT of pandas is a datetime, and not equal to itself
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"a decimal has no {value}; send None where there is no value")
        return format(value, "f")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return dict(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.datetime64):
            return _instant(value, numpy)
        if isinstance(value, numpy.generic) and not isinstance(value, (numpy.timedelta64, numpy.complexfloating)):
            return value.item()
        if isinstance(value, numpy.ndarray):
            return [_instant(item, numpy) for item in value] if value.dtype.kind == "M" else value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _instant(value: Any, numpy: Any) -> "int | str | None":
    if numpy.isnat(value):
        return None
    if numpy.datetime_data(value.dtype)[0] in ("D", "W", "M", "Y"):
        return str(value.astype("datetime64[D]"))
    return int(value.astype("datetime64[us]").astype("int64"))


def _spelt(value: Any) -> Any:
    """The value with its NaN and infinities as the tokens that Python's own json writes."""
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return _NAN if math.isnan(value) else _INFINITY if value > 0 else _MINUS_INFINITY
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Mapping):
        return {key: _spelt(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_spelt(item) for item in value]
    try:
        plain = _plain(value)
    except TypeError:
        return value  # orjson knows it, as a UUID or an Enum, or says what is wrong with it
    return _spelt(plain)
