"""A logger of another package, as pip would install it: a module, and metadata with an entry point."""

from pathlib import Path

MODULE = """
import json
from crosscontext.loggers import Logger

class Diary(Logger):
    def __init__(self, run):
        self.path = run.files / "diary.jsonl"
        self.tell(["begins", run.folder.name, run.step, run.settings["batch_size"]])

    def log(self, step, scalars):
        self.tell([step, scalars["train/loss"]])

    def close(self, failed):
        self.tell(["ends", failed])

    def tell(self, line):
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\\n")

class Hungry(Diary):
    needs = ("no_such_package",)

class Stranger:
    pass
"""
ENTRY_POINTS = """[crosscontext.loggers]
diary = diary_of_runs:Diary
hungry = diary_of_runs:Hungry
stranger = diary_of_runs:Stranger
gone = diary_of_runs:Gone
"""


def install_diary(folder: Path) -> None:
    """Put the package into a folder that is, or will be, on the path of modules."""
    (folder / "diary_of_runs.py").write_text(MODULE)
    about = folder / "diary_of_runs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: diary-of-runs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
