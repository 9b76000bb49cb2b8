"""Starts moto on a free port, which it says on standard error, and ends when standard input does."""
import os
import sys
import threading


def end():
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=end, daemon=True).start()

from moto.server import main

main(["-H", "127.0.0.1", "-p", "0"])
