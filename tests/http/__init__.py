"""DESIGN section 6, row by row, over real servers."""
