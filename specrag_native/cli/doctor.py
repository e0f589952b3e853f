"""``specrag doctor``: what is installed, what it runs on, and what is missing."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from specrag_native.cli.index_options import add_index_option, index_dir

Report = dict[str, Any]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="check the installation, the models and the index",
        description="Report versions, CPU features, the libraries that are loaded and from where, "
        "the models that are present and the health of the index. Exit code 1 when something is "
        "missing.",
    )
    add_index_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 when an answer could not be given with what is here."""
    report = examine(index_dir(args))
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 1 if report["problems"] else 0


def examine(directory: Path) -> Report:
    """Return the whole report as plain values; never raises for what it finds."""
    problems: list[str] = []
    report: Report = {
        "versions": _versions(),
        "machine": _machine(),
        "native": _native(problems),
        "models": _models(problems),
        "tuning": _tuning(),
        "index": _index(directory, problems),
    }
    report["problems"] = problems
    return report


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    names = ("specrag-native", "llama-cpp-python", "numpy", "faiss-cpu", "scikit-learn")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def _machine() -> dict[str, Any]:
    import os

    from specrag_native.hardware import cpu_name, physical_cores

    return {
        "system": platform.platform(),
        "cpu": cpu_name(),
        "logical_cpus": os.cpu_count(),
        "threads": physical_cores(),
        "memory_bytes": _memory(),
    }


def _memory() -> int | None:
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _native(problems: list[str]) -> dict[str, Any]:
    from specrag_native.errors import EngineError
    from specrag_native.native import library_facts

    try:
        facts = library_facts()
    except EngineError as error:
        problems.append(str(error))
        return {"error": str(error)}
    if len(facts.libraries) != len({Path(p).name for p in facts.libraries}):
        problems.append("two copies of the same library are loaded: " + ", ".join(facts.libraries))
    return {
        "library": facts.version,
        "built_for": facts.build_version,
        "cpu_features": facts.system_info,
        "amx": facts.amx,
        "gpu_offload": facts.supports_gpu_offload,
        "devices": [f"{d.name}: {d.description} ({d.kind})" for d in facts.devices],
        "loaded_from": list(facts.libraries),
    }


def _models(problems: list[str]) -> list[dict[str, Any]]:
    from specrag_native.model_files import catalog

    rows = []
    for status in catalog.list_models():
        if status.is_default and not status.present:
            problems.append(f"the default {status.model.role} is missing: run specrag pull")
        rows.append(
            {
                "name": status.model.name,
                "role": status.model.role,
                "default": status.is_default,
                "present": status.present,
                "path": str(status.path) if status.path else None,
                "bytes": status.size,
            }
        )
    return rows


def _tuning() -> dict[str, Any]:
    """Return what ``specrag tune`` kept for the default models here; none of it is a problem."""
    from specrag_native.model_files import catalog, model_dir
    from specrag_native.tuning import store as tuning_store

    stored, machine = tuning_store.read(), tuning_store.this_machine()
    rows = []
    for status in catalog.list_models():
        if not status.is_default or status.path is None:
            continue
        if status.model.role not in tuning_store.TUNED_ROLES:
            continue
        row: dict[str, Any] = {"role": status.model.role, "file": status.path.name, "tuned": False}
        try:
            digest = model_dir.file_digest(status.path)
        except OSError:
            digest = ""
        if found := stored.find(digest, machine):
            row |= {
                "tuned": True,
                "date": found.date,
                "settings": tuning_store.valid(found.settings),
                "left": list(found.left),
            }
        elsewhere = any(e.digest == digest for e in stored.entries)
        row["elsewhere"] = elsewhere and not row["tuned"]
        rows.append(row)
    return {"off": tuning_store.is_off(), "problem": stored.problem, "models": rows}


def _index(directory: Path, problems: list[str]) -> dict[str, Any]:
    from specrag_native.errors import UserError
    from specrag_native.retrieval.index import Index

    if not directory.exists():
        return {"path": str(directory), "present": False}
    try:
        with Index.open(directory) as index:
            counts = index.counts
            return {
                "path": str(directory),
                "present": True,
                "embedder": index.embedder,
                "documents": counts.documents,
                "passages": counts.passages,
            }
    except UserError as error:
        problems.append(str(error))
        return {"path": str(directory), "present": True, "error": str(error)}


def _print(report: Report) -> None:
    for title in ("versions", "machine", "native"):
        print(title)
        for name, value in report[title].items():
            values = value if isinstance(value, list) else [value]
            for i, item in enumerate(values):
                print(f"  {name if i == 0 else '':<18} {item}")
    print("models")
    for model in report["models"]:
        mark = "present" if model["present"] else "missing"
        star = "*" if model["default"] else " "
        print(f"  {star} {model['name']:<36} {model['role']:<10} {mark}")
    _print_tuning(report["tuning"])
    index = report["index"]
    print("index")
    if not index["present"]:
        print(f"  none at {index['path']}: run specrag index PATH")
    else:
        for name, value in index.items():
            print(f"  {name:<18} {value}")
    print()
    if report["problems"]:
        for problem in report["problems"]:
            print(f"problem: {problem}")
    else:
        print("no problems found")


def _print_tuning(tuning: Report) -> None:
    print("tuning")
    if tuning["off"]:
        print("  off: SPECRAG_NO_TUNING is set, so the defaults are used")
    if tuning["problem"]:
        print(f"  {tuning['problem']}")
    for model in tuning["models"]:
        if model["tuned"]:
            settings = ", ".join(f"{k} {v}" for k, v in model["settings"].items())
            said = f"{settings or 'the defaults, the fastest of what was tried'} ({model['date']})"
            if model["left"]:
                said += f"; not tried: {', '.join(model['left'])}"
        elif model["elsewhere"]:
            said = "defaults; measured on another machine or library only: run specrag tune"
        else:
            said = "defaults; not measured on this machine: run specrag tune"
        print(f"  {model['role']:<18} {said}")
