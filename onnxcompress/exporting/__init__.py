"""The parts of `onnxcompress.export`: example inputs, verification, provenance, what the command line names."""
