"""bench.json in the build directory: {"name": {"ratio": ..., "target": ..., "better": "lower" or "higher"}}."""
import json
import os

from harness import BUILD


def add(result):
    """What a benchmark found, beside what the others did."""
    path = os.path.join(BUILD, "bench.json")
    if os.path.exists(path):
        with open(path) as f:
            result = {**json.load(f), **result}
    with open(path, "w") as f:
        json.dump(result, f, indent=1)
