from __future__ import annotations

import zipfile
from pathlib import Path

import index_files as make
import pytest

from specrag_native.errors import DocumentError
from specrag_native.ingest import ReadLimits, read_documents, reader_for

LIMITS = ReadLimits()


def read(path: Path, limits: ReadLimits = LIMITS):
    """Read in this process; return the documents and the note."""
    reader = reader_for(path.name)
    assert reader is not None
    reading = read_documents(path, reader, limits=limits)
    documents = []
    while True:
        try:
            documents.append(next(reading))
        except StopIteration as end:
            return documents, end.value


def read_one(path: Path, limits: ReadLimits = LIMITS):
    (document,), _ = read(path, limits)
    return document


def test_text_is_the_file_character_for_character(tmp_path):
    text = "Zeile eins\r\nZeile zwei mit \u00fc und \U0001f41d\n\n  Ende"
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_one(path).text == text
    path.write_bytes(b"\xff\xfe" + text.encode("utf-16-le"))
    assert read_one(path).text == text


@pytest.mark.parametrize(
    ("name", "text", "title"),
    [
        ("a.md", "intro\n\n## A heading ##\ntext", "A heading"),
        ("a.rst", "Title here\n==========\n\ntext", "Title here"),
        ("a.md", "no heading at all", None),
    ],
)
def test_markup_is_titled_by_its_first_heading(tmp_path, name, text, title):
    (tmp_path / name).write_text(text)
    document = read_one(tmp_path / name)
    assert (document.title, document.text) == (title, text)


def test_code_is_cut_at_line_ends(tmp_path):
    (tmp_path / "a.py").write_text("def f():\n    return 1\n")
    assert read_one(tmp_path / "a.py").layout == "lines"


def test_rows_of_a_table_name_their_columns(tmp_path):
    (tmp_path / "a.csv").write_text('name;born\n"Ada; L.";1815\nGrace;\n')
    assert read_one(tmp_path / "a.csv").text == "name; born\nname: Ada; L.; born: 1815\nname: Grace"
    (tmp_path / "b.tsv").write_text("1\t2\n3\t4\n")
    assert read_one(tmp_path / "b.tsv").text == "1; 2\n3; 4"


def test_json_lines_give_a_document_per_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"id": 7, "title": "T", "text": "body"}\n\n{"a": {"b": [1, "x"]}}\n[]\n"s"\n{\n'
    )
    documents, note = read(path)
    assert [(d.key, d.title, d.text) for d in documents] == [
        ("7", "T", "body"),
        ("3", None, "a.b: 1\na.b: x"),
        ("5", None, "s"),
    ]
    assert note.startswith("1 lines are no JSON")
    path.write_text("nonsense\n{")
    with pytest.raises(DocumentError, match="no line is JSON"):
        read(path)


def test_json_is_rows_or_one_document(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"id": "x", "text": "one"}, {"id": "y", "text": "two"}]')
    assert [d.key for d in read(path)[0]] == ["x", "y"]
    path.write_text('{"a": 1, "b": {"c": "two"}}')
    assert read_one(path).text == "a: 1\nb.c: two"
    path.write_text("[" * 100_000)
    with pytest.raises(DocumentError, match="no JSON"):
        read(path)


def test_a_broken_gzip_stream_is_reported(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00broken and short")
    with pytest.raises(DocumentError, match="gzip"):
        read(tmp_path / "a.jsonl.gz")


def test_html_gives_what_a_reader_sees(tmp_path):
    document = read_one(make.make_html(tmp_path / "a.html"))
    assert document.title == "About & Bees"
    assert document.text == (
        "Bees\n\nBees make honey.\n\n- one\n\n- two\n\nNorth; 60000\n\ncode\n  stays"
    )


def test_html_is_decoded_as_it_says(tmp_path):
    path = tmp_path / "a.htm"
    path.write_bytes("<meta charset=latin-1><p>caf\xe9".encode("latin-1"))
    assert read_one(path).text == "caf\xe9"
    path.write_bytes("<p>\u201ccaf\xe9\u201d".encode("cp1252"))
    assert read_one(path).text == "\u201ccaf\xe9\u201d"


def test_epub_follows_its_spine(tmp_path):
    document = read_one(make.make_epub(tmp_path / "a.epub"))
    assert document.title == "The Bee Book"
    assert document.text == "Chapter one hums.\n\nChapter two stings."


def test_pdf_keeps_its_pages(tmp_path):
    pytest.importorskip("pypdf")
    pytest.importorskip("reportlab")
    pages = ["Page one is about hon-\ney and bees.", "", "Page three is about wax."]
    path = make.make_pdf(tmp_path / "a.pdf", pages, title="Bee Report")
    (document,), note = read(path)
    assert document.title == "Bee Report"
    assert "honey and bees" in document.text
    assert document.page_of(document.text.index("one")) == 1
    assert document.page_of(document.text.index("three")) == 3
    assert note == "1 of 3 pages have no text (pages 2)"


def test_pdf_without_text_or_with_a_password_is_refused(tmp_path):
    pytest.importorskip("pypdf")
    pytest.importorskip("reportlab")
    with pytest.raises(DocumentError, match="no text on its 1 pages"):
        read(make.make_image_pdf(tmp_path / "image.pdf"))
    with pytest.raises(DocumentError, match="encrypted"):
        read(make.make_pdf(tmp_path / "locked.pdf", ["Secret."], password="pass"))


def test_docx_is_read_in_order(tmp_path):
    pytest.importorskip("docx")
    document = read_one(make.make_docx(tmp_path / "a.docx"))
    assert document.title == "Report on Bees"
    assert document.text == (
        "Report on Bees\n\nBees make honey from nectar.\n\n- First item\n\n"
        "Hive; Bees\nHive: North; Bees: 60000\n\nThe end of the report."
    )


def test_pptx_slides_are_pages(tmp_path):
    pytest.importorskip("pptx")
    document = read_one(make.make_pptx(tmp_path / "a.pptx"))
    assert document.title == "Honey"
    assert document.page_of(document.text.index("sweet")) == 1
    assert document.page_of(document.text.index("candles")) == 2


def test_xlsx_sheets_are_pages(tmp_path):
    pytest.importorskip("openpyxl")
    document = read_one(make.make_xlsx(tmp_path / "a.xlsx"))
    assert document.text == (
        "Harvest\nYear; Kilograms\nYear: 2023; Kilograms: 41.5\n\n"
        "Costs\nItem; Price\nItem: Jar; Price: 2"
    )
    assert document.page_of(document.text.index("Jar")) == 2


@pytest.mark.parametrize("suffix", ["docx", "pptx", "xlsx", "epub"])
def test_zip_containers_are_checked_before_they_are_parsed(tmp_path, suffix, monkeypatch):
    if suffix != "epub":
        pytest.importorskip({"docx": "docx", "pptx": "pptx", "xlsx": "openpyxl"}[suffix])
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"\xd0\xcf\x11\xe0" + b"\x00" * 600)
    with pytest.raises(DocumentError, match="encrypted, or an old binary file"):
        read(path)
    path.write_bytes(b"PK\x03\x04 truncated")
    with pytest.raises(DocumentError, match="broken"):
        read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big", b"\x00" * 5_000_000)
    monkeypatch.setattr("specrag_native.ingest.archive._UNPACKED_BYTES", 1_000_000)
    with pytest.raises(DocumentError, match="unpacks to"):
        read(path)


def test_a_missing_library_names_the_extra(tmp_path):
    from specrag_native.ingest import Reader

    reader = Reader(name="xyz", suffixes=(".xyz",), function="nowhere:read", needs="no_such_module")
    (tmp_path / "a.xyz").write_text("x")
    with pytest.raises(DocumentError, match=r"pip install 'specrag-native\[documents\]'"):
        list(read_documents(tmp_path / "a.xyz", reader, limits=LIMITS))


def test_text_that_is_too_long_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 1001)
    with pytest.raises(DocumentError, match="1001 characters, more than 1000"):
        read(tmp_path / "a.txt", ReadLimits(text_chars=1000))


def test_text_never_holds_what_cannot_be_stored(tmp_path):
    (tmp_path / "a.json").write_text('{"text": "a\\ud800b\\u0000c"}')
    text = read_one(tmp_path / "a.json").text
    assert text == "a\ufffdb\ufffdc"


def test_the_longest_suffix_decides_and_unknown_ones_have_no_reader():
    assert reader_for("x.jsonl.gz").name == "json lines"
    assert reader_for("X.PDF").name == "pdf"
    assert reader_for("Makefile").name == "text"
    assert reader_for("photo.png") is None and reader_for("archive.tar.gz") is None
