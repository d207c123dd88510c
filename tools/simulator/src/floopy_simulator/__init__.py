"""Provider simulator: plays the providers' batch APIs for demos, tests and benchmarks."""
