"""One JSON line a statement, for the sessions that tests keep open."""

import json
import sys


def plain(value):
    """What JSON has no form for: bytes as hexadecimal digits, the rest (times, decimals) as text."""
    return bytes(value).hex() if isinstance(value, (bytes, bytearray, memoryview)) else str(value)


def answer(query, statement):
    """Prints the answer of `query`, which gives (columns, rows); whether it was none of an error."""
    try:
        columns, rows = query(statement)
        line = {"columns": list(columns), "rows": rows}
    except Exception as error:  # whatever it is, the one who asked is to read it
        line = {"error": str(error) or repr(error)}
    print(json.dumps(line, default=plain), flush=True)
    return "error" not in line


def serve(query):
    """Answers the lines of standard input to its end."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        if line.strip():
            answer(query, line.strip().rstrip(";"))
