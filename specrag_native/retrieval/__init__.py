"""From files to passages that can be found: chunking, the index, hybrid search."""
