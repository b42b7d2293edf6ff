"""What the exit codes mean, in every command."""

OK = 0
FAILED = 1  # the answer is no: no compiled kernels, a bound exceeded, a call that raises
USAGE = 2  # a wrong argument or environment variable, an extra that is not installed
BROKEN = 3  # doctor: kernels are there and compute wrongly
INTERRUPTED = 130
