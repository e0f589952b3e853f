"""Office files: python-docx, python-pptx and openpyxl (all MIT licence).

Law: text comes in reading order; slides and sheets are pages; formulas give their stored values.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from specrag_native.errors import DocumentError
from specrag_native.ingest.archive import check_zip
from specrag_native.ingest.document import Document, ReadLimits, join_pages, tidy_title
from specrag_native.ingest.tables import table_text

_CELLS = 2_000_000


def read_docx(path: Path, limits: ReadLimits) -> Iterator[Document]:
    """Yield the one document of a Word file: paragraphs and tables, in order."""
    docx: Any = importlib.import_module("docx")
    check_zip(path, "docx")
    document = docx.Document(str(path))
    parts: list[str] = []
    heading = None
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            text = table_text([cell.text for cell in row.cells] for row in block.rows)
        else:
            text = block.text
            style = block.style.name or "" if block.style is not None else ""
            if heading is None and style.startswith(("Title", "Heading")):
                heading = text
            if style.startswith("List"):
                text = f"- {text}" if text.strip() else ""
        if text.strip():
            parts.append(text.strip())
    title = tidy_title(document.core_properties.title) or tidy_title(heading)
    yield Document("\n\n".join(parts), title=title)


def read_pptx(path: Path, limits: ReadLimits) -> Iterator[Document]:
    """Yield the one document of a presentation; slides are pages, their notes included."""
    pptx: Any = importlib.import_module("pptx")
    check_zip(path, "pptx")
    presentation = pptx.Presentation(str(path))
    slides: list[str] = []
    first_title = None
    for slide in presentation.slides:
        parts = list(_shapes(slide.shapes, 0))
        title = slide.shapes.title
        if first_title is None and title is not None:
            first_title = title.text_frame.text
        if slide.has_notes_slide:
            notes = slide.notes_slide.notes_text_frame
            parts.append(notes.text if notes is not None else "")
        slides.append("\n\n".join(part.strip() for part in parts if part.strip()))
    text, starts = join_pages(slides)
    title_text = tidy_title(presentation.core_properties.title) or tidy_title(first_title)
    if title_text == "PowerPoint Presentation":
        title_text = tidy_title(first_title)
    yield Document(text, title=title_text, pages=starts)


def read_xlsx(path: Path, limits: ReadLimits) -> Generator[Document, None, str | None]:
    """Yield the one document of a workbook; sheets are pages, each begun by its name."""
    openpyxl: Any = importlib.import_module("openpyxl")
    check_zip(path, "xlsx")
    workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
    budget = [_CELLS]
    sheets: list[str] = []
    try:
        for sheet in workbook.worksheets:
            if hasattr(sheet, "reset_dimensions"):
                sheet.reset_dimensions()  # what the file claims of its size is not believed
            table = table_text(_rows(sheet.iter_rows(values_only=True), budget))
            sheets.append(f"{sheet.title}\n{table}" if table else "")
        title = tidy_title(workbook.properties.title)
    finally:
        workbook.close()
    if not any(sheets):
        raise DocumentError("no text in it")
    text, starts = join_pages(sheets)
    yield Document(text, title=title, pages=starts, layout="lines")
    return f"only its first {_CELLS} cells were read" if budget[0] <= 0 else None


def _rows(rows: Iterable[tuple[Any, ...]], budget: list[int]) -> Iterator[list[str]]:
    for row in rows:
        budget[0] -= max(1, len(row))
        if budget[0] <= 0:
            return
        yield ["" if cell is None else str(cell) for cell in row]


def _shapes(shapes: Iterable[Any], depth: int) -> Iterator[str]:
    for shape in shapes:
        if hasattr(shape, "shapes") and depth < 16:
            yield from _shapes(shape.shapes, depth + 1)
        elif getattr(shape, "has_table", False):
            yield table_text([cell.text for cell in row.cells] for row in shape.table.rows)
        elif getattr(shape, "has_text_frame", False):
            yield shape.text_frame.text
