"""The pure decisions: functions of values and `now`."""
