#!/usr/bin/env python3
"""Interrupts a program (Ctrl-C) when it has begun, and ends as it does, with its output.

    interrupt.py written COMMAND...      when it has written to standard output, which then takes no more, so that the program
                                         cannot be done before
    interrupt.py TEXT COMMAND...         when TEXT stands on the terminal that its standard error is
"""

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time

F_SETPIPE_SZ = 1031
FILLING = b" " * 4000  # of a pipe of 4096 bytes


def unread(pipe):
    n = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, n)
    return n[0]


def when_written(command):
    out, end = os.pipe()
    fcntl.fcntl(end, F_SETPIPE_SZ, 4096)
    os.write(end, FILLING)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=end)
    os.close(end)
    while process.poll() is None and unread(out) <= len(FILLING):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    with open(out, "rb") as file:
        sys.stdout.buffer.write(file.read()[len(FILLING):])
    return process.wait()


def read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # all have closed its other side
        return b""


def when_shown(text, command):
    terminal, other = os.openpty()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=other)
    os.close(other)
    shown = more = read(terminal)
    while more and text not in shown:
        more = read(terminal)
        shown += more
    process.send_signal(signal.SIGINT)
    while more := read(terminal):
        shown += more
    sys.stderr.buffer.write(shown)
    return process.wait()


if sys.argv[1] == "written":
    sys.exit(when_written(sys.argv[2:]))
sys.exit(when_shown(sys.argv[1].encode(), sys.argv[2:]))
