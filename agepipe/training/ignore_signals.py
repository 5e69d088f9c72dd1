"""Ignores SIGINT and SIGTERM from its import on; imported by the fork server alone, before anything else.

Ctrl-C in a terminal and Prefect's worker signal every process of the group. What that means is decided by the process
that waits for the work; the fork server and all work end with it.
"""

import signal

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
