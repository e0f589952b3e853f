"""Answers from your own documents, on your own machine, by Speculative RAG."""

from specrag_native.config import Config
from specrag_native.errors import (
    Cancelled,
    ConfigError,
    ContextFullError,
    DecodeError,
    DocumentError,
    EngineError,
    IndexStoreError,
    ModelFileError,
    ModelNotFoundError,
    QuestionError,
    SpecragError,
    UserError,
)
from specrag_native.session import SpeculativeRAG
from specrag_native.types import Answer, Citation, Draft, Hit, Passage, Question, Verdict

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Cancelled",
    "Citation",
    "Config",
    "ConfigError",
    "ContextFullError",
    "DecodeError",
    "DocumentError",
    "Draft",
    "EngineError",
    "Hit",
    "IndexStoreError",
    "ModelFileError",
    "ModelNotFoundError",
    "Passage",
    "Question",
    "QuestionError",
    "SpecragError",
    "SpeculativeRAG",
    "UserError",
    "Verdict",
    "__version__",
]
