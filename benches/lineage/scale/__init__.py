"""The benchmark at sizes that people use: real models, large shapes, time and memory."""
