"""The leading monitor as a process: its loop, the threads beside it, what it counts."""
