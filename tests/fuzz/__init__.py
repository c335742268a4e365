"""Coverage-guided fuzzing of the collector's pure parts. `make fuzz SECONDS=60`"""
