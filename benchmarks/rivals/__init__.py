"""What people use today, measured as they would use it: the same files, threads and prompts.

Law: a rival gets the same text to read and may write as many tokens; what it caches by itself
stays on.
"""
