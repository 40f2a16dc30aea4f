"""Prints what DuckDB finds in a log: rows, rows with packets, packets, bytes, and the latest `end`.

    duckdb_sums.py FILE.parquet
    duckdb_sums.py FILE.gz
"""

import sys

import duckdb

path = sys.argv[1]
if path.endswith(".parquet"):
    log = duckdb.read_parquet(path)
else:
    log = duckdb.read_csv(path, delimiter=" ", na_values="-", header=True)
sums = log.aggregate('count(*), count(packets), sum(packets)::bigint, sum(bytes)::bigint, max("end")').fetchall()[0]
print(*sums)
