"""The vocabulary of SegLens: values and errors, without torch."""
