"""The command line: one module per command, each with ``add_parser`` and ``run``.

Law: a user's mistake is one line on stderr and exit code 2, never a traceback.
"""
