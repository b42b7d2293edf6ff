"""The process of a Worker: reads requests and writes answers, a line of JSON for each."""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any


def main() -> None:
    """Answers requests until there are no more."""
    # What a library prints must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    import torch
    from cases import COPY, OPS, Case

    import fastact

    def prepare(name: str, dtype: str, where: str, mode: str) -> Any:
        # Another revision may not have the op.
        if name not in OPS or not hasattr(fastact.functional, OPS[name].function):
            return None
        case = Case(OPS[name], dtype, where, mode)
        contender = request["contender"]
        return case.calls([] if contender == COPY else [contender]).get(contender)

    torch.set_num_threads(int(sys.argv[1]))
    gc.disable()
    call: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: object = None
        if request["do"] == "where":
            answer = fastact.__file__
        elif request["do"] == "prepare":
            call = None
            gc.collect()
            call = prepare(*request["case"])
            answer = call is not None
        elif request["do"] == "warm_up":
            answer = call.warm_up(request["shortest"])
        elif request["do"] == "sample":
            answer = call.sample(request["number"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
