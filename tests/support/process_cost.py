"""What a process takes, and the barest one that predicts: numpy, ONNX Runtime, one run."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import NamedTuple

BARE = """
import os
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
model = open(sys.argv[1], "rb").read()
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
session.run(None, {"features": numpy.zeros((1, int(sys.argv[2])), numpy.float32)})
"""


class Cost(NamedTuple):
    """What a process took: seconds by the clock and of the processor, peak memory in MB."""

    wall_s: float
    cpu_s: float
    memory_mb: float


def cost_of(command: list[object]) -> Cost:
    """Run a process to its end, and return what it took."""
    wrapped = (
        "import json, resource, subprocess, sys, time\n"
        "started = time.monotonic()\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "wall = time.monotonic() - started\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3]))\n"
    )
    arguments = [sys.executable, "-S", "-c", wrapped, *map(str, command)]
    answer = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return Cost(*json.loads(answer.stdout))
