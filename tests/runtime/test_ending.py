"""A process ends with the code and the words that its `main` left it with."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("pass", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('DATABASE_URL is not set')", 1, "DATABASE_URL is not set\n"),
    ],
)
def test_code_and_words(body: str, code: int, said: str) -> None:
    program = (
        "import sys, runtime.ending\n"
        f"def main(): print('working'); {body}\n"
        "runtime.ending.run_and_leave(main)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "working\n", said)


def test_what_is_nobody_s_fault_is_told_in_full() -> None:
    program = "import runtime.ending\ndef main(): 1 / 0\nruntime.ending.run_and_leave(main)"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr
