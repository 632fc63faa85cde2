"""The vocabulary: frozen values, enums and errors. No I/O, no clock, no behaviour beyond their own arithmetic."""
