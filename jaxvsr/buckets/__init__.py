"""Folders in buckets: `gs://bucket/path` and `s3://bucket/path`."""
