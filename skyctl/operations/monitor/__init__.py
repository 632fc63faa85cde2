"""What the leading monitor concludes and does, each in a term of its own."""
