"""What imgkit costs beside what users would pick instead. `make bench` runs all of it."""
