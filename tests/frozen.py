"""What users rely on word by word: ``python tests/frozen.py`` writes options and help of all verbs."""

import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import crosscontext
from crosscontext.complaints import spelled
from crosscontext.completion import known_verbs
from crosscontext.fields import places
from crosscontext.layers import COMMAND_LINE
from crosscontext.verbs import VERBS

OPTIONS = Path(__file__).with_name("frozen_options.txt")
KINDS = {name: verb.kind for name, verb in known_verbs().items()}
"""What each verb takes."""


def options() -> str:
    """All options of all verbs, one a line, sorted."""
    found = {f"{verb} {spelled(place.path, COMMAND_LINE)}" for verb in KINDS for place in places(KINDS[verb])}
    return "".join(f"{option}\n" for option in sorted(found))


def help_of(verb: str) -> str:
    """The help of a verb as its settings give it, at 80 columns."""
    said, columns = StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        with redirect_stdout(said):
            VERBS[verb](["--help"])
    finally:
        del os.environ["COLUMNS"]
        os.environ |= {"COLUMNS": columns} if columns else {}
    return said.getvalue()


def written_help(verb: str) -> Path:
    """The file that the program prints."""
    return Path(crosscontext.__file__).with_name("assets") / "help" / f"{verb}.txt"


if __name__ == "__main__":
    OPTIONS.write_text(options())
    for name in KINDS:
        written_help(name).parent.mkdir(exist_ok=True)
        written_help(name).write_text(help_of(name))
