"""The contract of a stream, what it remembers, and how streams are made."""
