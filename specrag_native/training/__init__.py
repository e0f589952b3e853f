"""Training of drafters: examples, fine-tuning, export, checks.

Law: nothing of the ``train`` extra is imported before a command of it runs.
"""
