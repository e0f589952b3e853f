"""Benchmarks are files named ``bench_*.py``; those marked ``full`` take longer than a coffee."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_configure(config: pytest.Config) -> None:
    """Find the benchmarks and know their marks."""
    config.addinivalue_line("python_files", "bench_*.py")
    config.addinivalue_line("markers", "full: more questions; left out of the short version")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    """Leave the machine's name out of results that are shared."""
    machine_info.pop("node", None)
