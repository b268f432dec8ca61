"""A process that forks one for each run it is asked for, so that imports are paid once.

Takes settings as lines of JSON. Answers each with the number of the new process, then with how that ended.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from crosscontext.errors import CrossContextError
from crosscontext.pretraining import PretrainSettings, pretrain
from tiny_run import settings


def main() -> None:
    with TemporaryDirectory() as out:  # a first run imports what only runs need
        pretrain(settings({"name": "shapes", "num_train": 24}, Path(out) / "run", steps=1, workers=0))
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            code = 1
            try:
                pretrain(PretrainSettings.model_validate_json(line))
                code = 0
            except CrossContextError as error:
                print(error, file=sys.stderr, flush=True)
                code = error.exit_code
            finally:
                os._exit(code)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
