"""Prints the rows of a Parquet file as pyarrow reads them, values separated by spaces and null as `-`.

    parquet_rows.py FILE
"""

import sys

import pyarrow.parquet

table = pyarrow.parquet.read_table(sys.argv[1])
for row in zip(*(column.to_pylist() for column in table.columns)):
    print(*("-" if value is None else value for value in row))
