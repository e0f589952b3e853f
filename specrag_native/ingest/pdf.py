"""PDF files, by pypdf: pure Python, BSD licence, and a parser that a broken file cannot crash.

Law: pages keep their numbers; a page without text is noted, a file without any is refused.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

from specrag_native.errors import DocumentError
from specrag_native.ingest.document import Document, ReadLimits, clean, join_pages, tidy_title

_HYPHENATED = re.compile(r"([a-z\u00df-\u00ff])-[ \t]*\n[ \t]*(?=[a-z\u00df-\u00ff])")
_NO_TITLE = re.compile(r"(?:untitled|microsoft word|document\d*$|slide \d|.*\.\w{2,5}$)", re.I)


def read_pdf(path: Path, limits: ReadLimits) -> Generator[Document, None, str | None]:
    """Yield the one document of a PDF file."""
    pypdf: Any = importlib.import_module("pypdf")
    errors: Any = importlib.import_module("pypdf.errors")
    try:
        reader = pypdf.PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentError("encrypted: it needs a password")
        n_pages = len(reader.pages)
    except errors.DependencyError as error:
        raise DocumentError(f"encrypted: pip install cryptography to read it ({error})") from None
    except errors.PyPdfError as error:
        raise DocumentError(f"broken pdf file ({error})") from None
    pages: list[str] = []
    failed: list[int] = []
    chars = 0
    for i in range(n_pages):
        try:
            text = tidy(reader.pages[i].extract_text())
        except MemoryError:
            raise
        except Exception:  # one broken page must not cost the others
            text = ""
            failed.append(i + 1)
        chars += len(text)
        if chars > limits.text_chars:
            raise DocumentError(f"its text has more than {limits.text_chars} characters")
        pages.append(text)
    empty = [i + 1 for i, text in enumerate(pages) if not text.strip()]
    if len(empty) == n_pages:
        if failed:
            raise DocumentError(f"broken pdf file (none of its {n_pages} pages can be read)")
        raise DocumentError(f"no text on its {n_pages} pages (scanned images are not read)")
    text, starts = join_pages(pages)
    yield Document(text, title=_title(reader), pages=starts)
    if not empty:
        return None
    some = ", ".join(str(page) for page in empty[:5]) + (" ..." if len(empty) > 5 else "")
    return f"{len(empty)} of {n_pages} pages have no text (pages {some})"


def tidy(text: str) -> str:
    """Return a page's text with words joined that were hyphenated at a line's end."""
    return _HYPHENATED.sub(r"\1", clean(text)).strip()


def _title(reader: Any) -> str | None:
    try:
        title = tidy_title(str(reader.metadata.title)) if reader.metadata else None
    except Exception:  # metadata of broken files may be of any type
        return None
    return None if title is None or title == "None" or _NO_TITLE.match(title) else title
