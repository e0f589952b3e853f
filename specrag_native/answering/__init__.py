"""From a question to an answer: subsets, drafts, verdicts, repair, citations, confidence."""
