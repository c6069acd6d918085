"""Fixtures for the whole suite live in `tests/fixtures/`, by what they stand for."""

pytest_plugins = [
    "tests.fixtures.servers",
    "tests.fixtures.database",
    "tests.fixtures.sandbox",
    "tests.fixtures.house",
]
