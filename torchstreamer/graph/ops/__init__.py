"""Streams of operations that occur in graphs and have no layer of torch.nn."""
