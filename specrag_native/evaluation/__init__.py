"""Question sets, metrics, runs and reports: how good and how fast the method is.

Law: a figure that is shown is computed from results on disk, and every result says what made it.
"""
