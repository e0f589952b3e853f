"""Real files of each format, made by real writers."""

from __future__ import annotations

import zipfile
from pathlib import Path


def make_pdf(path: Path, pages: list[str], *, title: str = "", password: str = "") -> Path:
    from reportlab.lib import pdfencrypt
    from reportlab.pdfgen import canvas

    encrypt = pdfencrypt.StandardEncryption(password) if password else None
    drawing = canvas.Canvas(str(path), encrypt=encrypt)
    drawing.setTitle(title)
    for page in pages:
        text = drawing.beginText(50, 780)
        for line in page.split("\n"):
            text.textLine(line)
        drawing.drawText(text)
        drawing.showPage()
    drawing.save()
    return path


def make_image_pdf(path: Path) -> Path:
    from reportlab.pdfgen import canvas

    drawing = canvas.Canvas(str(path))
    drawing.rect(100, 100, 200, 200, fill=1)
    drawing.showPage()
    drawing.save()
    return path


def make_docx(path: Path) -> Path:
    import docx

    document = docx.Document()
    document.add_heading("Report on Bees", 0)
    document.add_paragraph("Bees make honey from nectar.")
    document.add_paragraph("First item", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for row, cells in zip(table.rows, [("Hive", "Bees"), ("North", "60000")], strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    document.add_paragraph("The end of the report.")
    document.save(str(path))
    return path


def make_pptx(path: Path) -> Path:
    import pptx

    presentation = pptx.Presentation()
    for title, body in (("Honey", "Honey is sweet."), ("Wax", "Wax burns slowly.")):
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = body
    presentation.slides[1].notes_slide.notes_text_frame.text = "Mention the candles."
    presentation.save(str(path))
    return path


def make_xlsx(path: Path) -> Path:
    import openpyxl

    workbook = openpyxl.Workbook()
    sheet = workbook.active
    sheet.title = "Harvest"
    sheet.append(["Year", "Kilograms"])
    sheet.append([2023, 41.5])
    other = workbook.create_sheet("Costs")
    other.append(["Item", "Price"])
    other.append(["Jar", 2])
    workbook.save(path)
    return path


def make_epub(path: Path) -> Path:
    container = (
        '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
        '<rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    )
    package = (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>The Bee Book</dc:title>'
        '</metadata><manifest><item id="b" href="two%20b.xhtml"/><item id="a" href="one.xhtml"/>'
        '</manifest><spine><itemref idref="a"/><itemref idref="b"/></spine></package>'
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("OEBPS/book.opf", package)
        archive.writestr("OEBPS/one.xhtml", "<html><body><p>Chapter one hums.</p></body></html>")
        archive.writestr(
            "OEBPS/two b.xhtml", "<html><body><p>Chapter two stings.</p></body></html>"
        )
    return path


def make_html(path: Path) -> Path:
    path.write_text(
        "<!doctype html><html><head><title>About &amp; Bees</title><style>p {color: red}</style>"
        "<script>var hidden = 1;</script></head><body><h1>Bees</h1><p>Bees\n  make "
        "<b>honey</b>.</p>"
        "<ul><li>one<li>two</ul><table><tr><td>North</td><td>60000</td></tr></table>"
        "<pre>code\n  stays</pre></body></html>",
        encoding="utf-8",
    )
    return path
