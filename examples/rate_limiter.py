"""Web workers that share one rate limit: a prefork HTTP server.

The parent opens the port and forks the workers, which all accept connections from it.  Whichever worker
gets a request takes a token from one bucket, which lies in shared memory under a TicketLock: there are
`--burst` tokens at first, and `--rate` come back each second.  Who finds none is answered 429.  A worker
that dies is replaced; if it died with the bucket in its hands, the next one is told, and fills it anew.

    python examples/rate_limiter.py --port 8080            # serve, until Ctrl-C; try curl -i localhost:8080
    python examples/rate_limiter.py --measure 3            # ask as fast as possible for 3 seconds, and count
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import multiprocessing
import os
import signal
import socket
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait

import pylocks

fork = multiprocessing.get_context("fork")  # workers inherit the open port


class Bucket:
    """A token bucket that any process may take from."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self.lock = pylocks.TicketLock()
        self.state = fork.RawArray("d", 2)  # tokens, and when they were counted
        self.state[:] = burst, time.monotonic()

    def take(self) -> float:
        """0 if there was a token, else the seconds until there will be one."""
        with self.lock:
            now = time.monotonic()
            tokens, then = self.state
            if self.lock.owner_died:  # between two stores, perhaps: these may not belong together
                tokens, then = self.burst, now
                self.lock.mark_consistent()
            tokens = min(self.burst, tokens + (now - then) * self.rate)
            taken = tokens >= 1
            self.state[:] = tokens - taken, now
        return 0.0 if taken else (1 - tokens) / self.rate


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers if the limit allows it."""

    bucket: Bucket

    def do_GET(self) -> None:
        seconds = self.bucket.take()
        self.send_response(429 if seconds else 200)
        if seconds:
            self.send_header("Retry-After", str(int(seconds) + 1))
        self.end_headers()
        self.wfile.write(f"worker {os.getpid()}: {'too fast' if seconds else 'hello'}\n".encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Worker(http.server.HTTPServer):
    """Serves a port that is open already, and ends with its parent."""

    def __init__(self, port: socket.socket) -> None:
        super().__init__(port.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.parent = port, os.getppid()

    def service_actions(self) -> None:
        if os.getppid() != self.parent:
            sys.exit()


def work(port: socket.socket) -> None:
    """A worker's life: Ctrl-C is for the parent, which ends its workers by SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore", pylocks.OwnerDiedWarning)  # Bucket.take looks for itself
    Worker(port).serve_forever(poll_interval=0.1)


def measure(address: tuple[str, int], seconds: float) -> None:
    """Ask from 4 threads for some time; ends with status 1 if more was let through than the limit allows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers: Counter[int] = Counter()
    bucket, filled = Handler.bucket, Handler.bucket.state[1]

    def ask() -> None:
        while time.monotonic() < filled + seconds:
            connection = http.client.HTTPConnection(*address)
            connection.request("GET", "/")
            answers[connection.getresponse().status] += 1
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            threads.submit(ask)
    took = time.monotonic() - filled
    allowed = bucket.burst + bucket.rate * took
    print(f"{answers.total()} requests in {took:.1f} s: {answers[200]} let through, {allowed:.0f} allowed")
    sys.exit(answers[200] > allowed)


def main() -> int:
    parser = argparse.ArgumentParser(description="Prefork web workers with one rate limit for all.")
    parser.add_argument("--port", type=int, default=0, help="of localhost; by default any that is free")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=50, help="requests a second, of all workers together")
    parser.add_argument("--burst", type=int, default=10, help="requests at once after a quiet time")
    parser.add_argument("--measure", type=float, metavar="SECONDS", help="be the client, too, and then end")
    given = parser.parse_args()

    Handler.bucket = Bucket(given.rate, given.burst)
    with socket.create_server(("127.0.0.1", given.port), backlog=128) as port:
        port.setblocking(False)  # all workers hear of a connection, one gets it
        workers = [fork.Process(target=work, args=(port,)) for _ in range(given.workers)]
        client = fork.Process(target=measure, args=(port.getsockname(), given.measure))
        running = workers + ([client] if given.measure else [])
        try:
            for process in running:
                process.start()
            print("http://{}:{}".format(*port.getsockname()), flush=True)
            while not given.measure or client.is_alive():
                wait([process.sentinel for process in running])
                for i, process in enumerate(running):
                    if process is not client and not process.is_alive():
                        running[i] = fork.Process(target=work, args=(port,))
                        running[i].start()
            return client.exitcode or 0
        except KeyboardInterrupt:
            return 0
        finally:
            for process in multiprocessing.active_children():
                process.terminate()
                process.join()


if __name__ == "__main__":
    sys.exit(main())
