"""What hosts and their agents tell: invited, registered, heard, answered, upgraded."""
