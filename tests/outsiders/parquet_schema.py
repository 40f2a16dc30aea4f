"""Prints each column of a Parquet file as pyarrow sees it: name, physical type, logical type, how often it may be null
(maximum definition level), codec, and whether every chunk has statistics.

    parquet_schema.py FILE
"""

import sys

import pyarrow.parquet

file = pyarrow.parquet.ParquetFile(sys.argv[1])
groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
for index in range(len(file.schema)):
    column = file.schema.column(index)
    chunks = [group.column(index) for group in groups]
    codecs = "/".join(sorted({chunk.compression for chunk in chunks}))
    statistics = all(chunk.is_stats_set for chunk in chunks)
    dictionary = all(chunk.has_dictionary_page for chunk in chunks)
    print(
        column.name,
        column.physical_type,
        column.logical_type.type,
        column.max_definition_level,
        codecs,
        "statistics" if statistics else "bare",
        "dictionary" if dictionary else "plain",
    )
