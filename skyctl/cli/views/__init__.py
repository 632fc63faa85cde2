"""From domain values to what is printed: tables, bars and words. No I/O but the terminal's."""
