"""The record: tables, SQL functions and repositories on one unit of work."""
