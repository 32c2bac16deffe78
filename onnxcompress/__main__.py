"""`python -m onnxcompress`."""

from onnxcompress.cli import run

if __name__ == "__main__":
    run()
