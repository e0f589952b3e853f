"""``specrag pull``: fetch, check and prepare models.

Law: progress goes to stderr and only to a terminal; stdout says what is ready and where.
"""

from __future__ import annotations

import argparse
import json
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specrag_native.model_files.catalog import ResolvedModel
    from specrag_native.model_files.fetch import Progress

_DOING = {"hub": "fetching", "package": "fetching", "check": "checking", "prepare": "preparing"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "pull",
        help="fetch, check and prepare models",
        description="Fetch models, check every byte of them, and prepare them for use. What is "
        "here already is not fetched again; an interrupted pull goes on where it stopped.",
    )
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="a model of `specrag models`, or user/repo:QUANT of the Hugging Face hub "
        "(default: the three default models)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Pull the named models, or the defaults, one after the other."""
    from specrag_native.model_files import catalog, fetch

    names: list[str] = args.names or list(catalog.catalogue().defaults.values())
    for name in names:
        fetch.check_name(name)  # a misspelt last name must not cost the first one's gigabyte
    ready = []
    with _Bars(shown=sys.stderr.isatty()) as bars:
        for name in dict.fromkeys(names):
            model = fetch.pull(name, progress=bars.show)
            bars.close()
            ready.append(model)
            if not args.json:
                print(f"{model.name}  {model.path}", flush=True)
    if args.json:
        print(json.dumps({"models": [_as_json(model) for model in ready]}, indent=2))
    return 0


def _as_json(model: ResolvedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "role": model.role,
        "path": str(model.path),
        "size": model.size,
        "sha256": model.sha256,
        "licence": model.licence,
    }


class _Bars:
    """One progress bar at a time, for the file and stage that was reported last."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._key: tuple[str, str] | None = None
        self._bar: Any = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def show(self, progress: Progress) -> None:
        """Draw how far the pull is."""
        if not self._shown:
            return
        key = (progress.file, progress.stage)
        if key != self._key:
            self.close()
            from tqdm import tqdm

            self._key = key
            self._bar = tqdm(
                desc=f"{_DOING[progress.stage]} {progress.file}",
                total=progress.total or None,
                unit="B",
                unit_scale=True,
                file=sys.stderr,
                leave=progress.stage != "check",
                delay=0.5 if progress.stage == "check" else 0,
            )
        self._bar.update(progress.done - self._bar.n)

    def close(self) -> None:
        """End the bar that is drawn."""
        if self._bar is not None:
            self._bar.close()
        self._key = self._bar = None
