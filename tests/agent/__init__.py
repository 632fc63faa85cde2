"""The agent: the real process, among real peers."""
