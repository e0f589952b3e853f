"""Every exception this package raises on purpose.

Law: a message says what was got, what was expected and what to do, in one line.

::

    SpecragError
    ├── UserError               a mistake the user can mend (exit code 2)
    │   ├── ConfigError         a setting out of its range, or unknown
    │   ├── QuestionError       an empty question, or one that fits no context
    │   ├── DocumentError       a document that cannot be read
    │   ├── IndexStoreError     an index that is missing, foreign, newer, or being written
    │   ├── ModelNotFoundError  a model that is neither present nor obtainable
    │   └── ModelFileError      a file that is no usable model (also wrong size or sha256)
    ├── EngineError             the native engine could not do its work
    │   ├── ContextFullError    one prompt alone is larger than the context
    │   └── DecodeError         the library's decode call failed
    └── Cancelled               the caller asked to stop
"""

from __future__ import annotations


class SpecragError(Exception):
    """Root of this package's exceptions."""


class UserError(SpecragError):
    """A mistake the user can mend; the command line prints it in one line and exits with 2."""


class ConfigError(UserError):
    """A setting is out of its range, or unknown."""


class QuestionError(UserError):
    """A question is empty, or does not fit the model's context."""


class DocumentError(UserError):
    """A document cannot be read."""


class IndexStoreError(UserError):
    """An index is missing, foreign, newer than this package, or held by another writer."""


class ModelNotFoundError(UserError):
    """A model is neither on this machine nor obtainable from any of its sources."""


class ModelFileError(UserError):
    """A file is no usable model: wrong format, truncated, wrong size or sha256, wrong kind."""


class EngineError(SpecragError):
    """The native engine could not do its work."""


class ContextFullError(EngineError):
    """One prompt alone is larger than the context.

    ``n_tokens`` is the prompt's size with room for its completion, ``n_ctx`` what fits, both in
    tokens.
    """

    def __init__(self, message: str, *, n_tokens: int = 0, n_ctx: int = 0) -> None:
        super().__init__(message)
        self.n_tokens = n_tokens
        self.n_ctx = n_ctx


class DecodeError(EngineError):
    """The library's decode call failed."""


class Cancelled(SpecragError):
    """The caller asked to stop."""
