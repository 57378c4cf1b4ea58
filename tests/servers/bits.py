"""The bits of every cell of an Iceberg table, as PyIceberg or DuckDB reads them.

A statement is `ENGINE TABLE`, ENGINE being pyiceberg or duckdb. Both give Arrow, whose buffers are looked at as they are:
no value goes through a Python float or a context's precision. Answers are JSON lines, as spark.py gives them, in which a
cell is null, a list, or text: floats and doubles their IEEE bits in hexadecimal digits, decimals their unscaled integer,
dates and timestamps their days and microseconds, text and bytes their bytes in hexadecimal digits.
"""

import argparse
import sys

import pyarrow as pa
import pyarrow.types as kinds
from answers import serve
from duckdb_sql import connect
from pyiceberg_sql import catalog


def unscaled(value, scale):
    sign, digits, exponent = value.as_tuple()
    assert exponent == -scale, (value, scale)
    return str((-1 if sign else 1) * int("".join(map(str, digits))))


def cells(array):
    """The cells of an Arrow array."""
    kind = array.type
    if kinds.is_list(kind) or kinds.is_large_list(kind):
        items, lists = cells(array.values), array.offsets.to_pylist()
        found = [items[start:end] for start, end in zip(lists, lists[1:])]
    elif kinds.is_float64(kind):
        found = [f"{bits:016x}" for bits in pa.array(array.fill_null(0)).view(pa.uint64()).to_pylist()]
    elif kinds.is_float32(kind):
        found = [f"{bits:08x}" for bits in array.fill_null(0).view(pa.uint32()).to_pylist()]
    elif kinds.is_timestamp(kind):
        assert kind.unit == "us", kind
        found = [str(value) for value in array.view(pa.int64()).to_pylist()]
    elif kinds.is_date32(kind):
        found = [str(value) for value in array.view(pa.int32()).to_pylist()]
    elif kinds.is_decimal(kind):
        found = [value if value is None else unscaled(value, kind.scale) for value in array.to_pylist()]
    elif kinds.is_boolean(kind):
        found = [str(value).lower() for value in array.to_pylist()]
    elif kinds.is_integer(kind):
        found = [str(value) for value in array.to_pylist()]
    elif kinds.is_string(kind) or kinds.is_large_string(kind):
        found = [value if value is None else value.encode().hex() for value in array.to_pylist()]
    elif kinds.is_binary(kind) or kinds.is_large_binary(kind):
        found = [value if value is None else value.hex() for value in array.to_pylist()]
    else:
        # Lists of records, which nothing here fills.
        found = array.to_pylist()
    return [cell if valid else None for cell, valid in zip(found, array.is_valid().to_pylist())]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--warehouse", default="warehouse")
    parser.add_argument("--namespace", default="flywheel")
    parser.add_argument("--s3", default="")
    args = parser.parse_args()
    tables, connection = catalog(args), connect(args)

    def query(statement):
        engine, table = statement.split()
        if engine == "pyiceberg":
            read = tables.load_table(f"{args.namespace}.{table}").scan().to_arrow()
        else:
            read = connection.execute(f'SELECT * FROM "{table}"').to_arrow_table()
        columns = [cells(pa.concat_arrays(column.chunks) if column.num_chunks else column.combine_chunks())
                   for column in read.columns]
        return read.column_names, [list(row) for row in zip(*columns)]

    serve(query)
    return 0


if __name__ == "__main__":
    sys.exit(main())
