"""How long `stabletune --help` takes, and an empty Python beside it."""

import subprocess
import sys

from timing import figure, seconds_of

figure("python -c pass", seconds_of(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True)), "s")
help_ = [sys.executable, "-m", "stabletune.cli", "--help"]
figure(
    "stabletune --help", seconds_of(lambda: subprocess.run(help_, check=True, stdout=subprocess.DEVNULL)), "s", "< 0.5"
)
