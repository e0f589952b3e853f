"""Other systems of the field as baselines on the same engine, without training.

Law: they read the same passages with the same model and write answers by the same prompt as
standard RAG, so only the method differs.
"""
