"""Ignores SIGINT and SIGTERM when it is imported; the fork server imports it first.

Ctrl-C in a terminal and Prefect's worker send a signal to every process of the group. The process that waits for the
workers decides what to do; the fork server and all workers end with it.
"""

import signal

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
