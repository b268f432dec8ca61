"""Nothing calls home: a whole run on a machine whose network is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind"):
        os.write(2, f"network: {event} {arguments}".encode())
        os._exit(99)

sys.addaudithook(refuse)
from crosscontext.cli import main
folder, out = sys.argv[1:]
options = "--steps 2 --batch-size 8 --image-size 16 --backbone.width 0.125 --threads 1 --workers 1".split()
assert main(["pretrain", "--data", folder, "--out", out, *options]) == 0
assert main(["evaluate", out, "--data", folder, "--tasks", "knn", "--threads", "1"]) == 0

import socket
socket.create_connection(("localhost", 9))
"""


@pytest.mark.slow
def test_training_and_evaluation_never_reach_for_the_network(image_folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(image_folder), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 99, done.stderr
    assert done.stderr.count("network:") == 1
    assert "('localhost', 9" in done.stderr  # by the last line of the program, and by nothing before it
    assert (tmp_path / "run" / "results.jsonl").is_file()
