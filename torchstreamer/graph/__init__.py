"""Any exportable model as a stream: captured as a graph of ATen operations, each lowered to a stream on prefixes."""
