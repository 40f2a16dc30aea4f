"""Reads a directory of ours with flowlogs-reader as if it were a bucket, and prints each record as a line.

    bucket.py DIRECTORY FIELD...

The reader finds files by the layout of AWS's keys, and takes records apart by the header of the file. What it knows no
value for is printed as `-`.
"""

import sys
import warnings
from calendar import timegm
from datetime import datetime
from pathlib import Path

warnings.simplefilter("ignore", DeprecationWarning)

import parquet  # noqa: E402
from flowlogs_reader import S3FlowLogsReader  # noqa: E402

# The reader's Parquet library knows this encoding by its old number only. The bytes are the same.
parquet.parquet_thrift.Encoding.PLAIN_DICTIONARY = parquet.parquet_thrift.Encoding.RLE_DICTIONARY


class Bucket:
    """As much of S3 as the reader asks for, with files for objects."""

    def __init__(self, root):
        self.root = Path(root)
        files = (path for path in self.root.rglob("*") if path.is_file())
        self.keys = sorted(str(path.relative_to(self.root)) for path in files)

    def list_objects_v2(self, Bucket, Prefix="", Delimiter=None):
        keys = [key for key in self.keys if key.startswith(Prefix)]
        if Delimiter is None:
            return {"Contents": [{"Key": key} for key in keys]}
        folders = {Prefix + key[len(Prefix) :].split(Delimiter)[0] + Delimiter for key in keys}
        return {"CommonPrefixes": [{"Prefix": folder} for folder in sorted(folders)]}

    def get_paginator(self, operation):
        return self

    def paginate(self, **question):
        yield self.list_objects_v2(**question)

    def get_object(self, Bucket, Key):
        path = self.root / Key
        return {"Body": path.open("rb"), "ContentLength": path.stat().st_size}


def text(value):
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return str(timegm(value.utctimetuple()))
    return str(value)


directory, *fields = sys.argv[1:]
reader = S3FlowLogsReader(
    "bucket",
    boto_client=Bucket(directory),
    start_time=datetime(2026, 3, 1),
    end_time=datetime(2026, 3, 4),
    raise_on_error=True,
)
for record in reader:
    print(" ".join(text(getattr(record, field.replace("-", "_"))) for field in fields))
