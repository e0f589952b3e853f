"""What of a passage is embedded, and the key its vector is kept under.

Law: equal texts have equal keys, so nothing is embedded twice.
"""

from __future__ import annotations

import hashlib


def embedding_text(title: str | None, text: str) -> str:
    """Return what is given to the embedder for a passage: its document's title, then its text.

    A title that is only the file's name is not passed (``None``), so that a renamed file keeps
    its vectors.
    """
    if not title or text.startswith(title):
        return text
    return f"{title}\n{text}"


def text_hash(text: str) -> bytes:
    """Return the key under which the vector of ``text`` is kept: 16 bytes of BLAKE2b."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
