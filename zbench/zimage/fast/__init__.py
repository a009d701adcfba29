"""What makes a loaded pipeline faster, each piece in a file with one entry that changes it in place and can undo it."""
