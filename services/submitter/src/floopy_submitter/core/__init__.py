"""What the submitter decides, free of I/O."""
