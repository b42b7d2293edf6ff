"""The process of one revision in compare.py: it times what it is told, a line of JSON for each."""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any

Request = dict[str, Any]
Reply = dict[str, Any]


def main() -> None:
    """Answers requests until there are no more."""
    # What a library prints must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    import torch
    from cases import OPS, Case

    import fastact

    torch.set_num_threads(int(sys.argv[1]))
    gc.disable()
    call, number = None, 1
    for line in sys.stdin:
        request: Request = json.loads(line)
        value: object = None
        if request["do"] == "where":
            value = fastact.__file__
        elif request["do"] == "prepare":
            op, dtype, where, mode = request["case"]
            call = None
            gc.collect()
            if op in OPS and hasattr(fastact.functional, OPS[op].function):
                case = Case(OPS[op], dtype, where, mode)
                call = case.calls([request["contender"]]).get(request["contender"])
            if call is not None:
                number = call.warm_up()
            value = call is not None
        elif request["do"] == "sample":
            assert call is not None
            value = call.sample(number)
        answers.write(json.dumps({"value": value}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
