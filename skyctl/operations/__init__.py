"""The stories: each function is one thing that the system does, and opens its own transactions."""
