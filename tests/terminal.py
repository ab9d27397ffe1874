"""Runs a script whose stderr is a terminal."""

import contextlib
import os
import pty
import subprocess
import sys
import termios


def on_terminal(script, *arguments):
    """Run a script with stderr on a pseudo-terminal, and return the text that it wrote to stderr."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stderr=follower, stdout=subprocess.PIPE)
    os.close(follower)
    written = b""
    with contextlib.suppress(OSError):  # raised by Linux when a closed terminal is read
        while part := os.read(leader, 65536):
            written += part
    os.close(leader)
    process.communicate(timeout=30)
    assert process.returncode == 0
    return written.decode()
