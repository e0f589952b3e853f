"""Whatever happens to a folder, its index ends up equal to a fresh one."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from index_fakes import HashEmbedder, check_integrity, contents, run_index

from specrag_native.errors import DocumentError
from specrag_native.retrieval.index_types import IndexOptions

NAMES = st.sampled_from(["a.txt", "b.md", "sub/a.txt", "sub/deep/c.json", "d.jsonl", ".h.txt"])
BODIES = st.sampled_from(
    [
        b"",
        b"Bees make honey.",
        b"Bees make honey. " * 40,
        b"# Title\n\nA river runs to the sea.\n\n" * 20,
        b'{"id": "1", "text": "one row"}\n{"id": "2", "text": "another row"}\n',
        b"\xff\xfe\xff broken",
        b"*.md\n",
    ]
)


class Stop(BaseException):
    """Ends a run between two steps, as a kill does, with no chance to tidy."""


class Stopping(HashEmbedder):
    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def embed(self, texts):
        self.after -= 1
        if self.after < 0:
            raise Stop
        return super().embed(texts)


class FolderMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "docs"
        self.folder.mkdir()
        (self.folder / "always.txt").write_text("This file is always here.")
        run_index(self.folder, self.root / "index")
        self.fresh = 0

    def teardown(self):
        shutil.rmtree(self.root)

    @rule(name=NAMES, body=BODIES)
    def write(self, name, body):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    @rule(body=BODIES)
    def ignore(self, body):
        (self.folder / ".gitignore").write_bytes(body)

    @rule(name=NAMES)
    def delete(self, name):
        (self.folder / name).unlink(missing_ok=True)

    @rule(old=NAMES, new=NAMES)
    def move(self, old, new):
        if (self.folder / old).exists():
            (self.folder / new).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / old).rename(self.folder / new)

    @rule(one=NAMES, other=NAMES)
    def swap(self, one, other):
        first, second = self.folder / one, self.folder / other
        if first.exists() and second.exists() and first != second:
            first.rename(self.root / "aside")
            second.rename(first)
            (self.root / "aside").rename(second)

    @rule(after=st.integers(0, 4))
    def index_and_stop(self, after):
        options = IndexOptions(batch=2)
        try:
            run_index(self.folder, self.root / "index", Stopping(after), options=options)
        except Stop:
            check_integrity(self.root / "index")

    @rule()
    def index_and_compare(self):
        run_index(self.folder, self.root / "index")
        fresh = self.root / f"fresh{self.fresh}"
        self.fresh += 1
        run_index(self.folder, fresh)
        assert contents(self.root / "index") == contents(fresh)

    @invariant()
    def nothing_is_lost(self):
        assert (self.root / "index" / "index.db").exists()


FolderMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_any_sequence_of_changes_and_stops_leaves_an_index_equal_to_a_fresh_one = FolderMachine.TestCase


def test_a_folder_whose_files_are_all_gone_empties_the_index(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("Text.")
    run_index(folder, tmp_path / "index")
    (folder / "a.txt").unlink()
    assert run_index(folder, tmp_path / "index").removed == 1
    folder.rmdir()
    with pytest.raises(DocumentError, match="no such file or folder"):
        run_index(folder, tmp_path / "index")
