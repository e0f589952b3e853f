"""Tables of figures, each from the results that its benchmark stored."""
