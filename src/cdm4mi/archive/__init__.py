"""Many scans restored by one command: found, named, spread over processes or machines, and listed in a table."""
