"""Processes, ports and measurements for the edge benchmark. Everything listens on loopback and ends with us."""

import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """The benchmark cannot go on; the message is for whoever runs it."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _end_with_parent():
    # Even if this program is killed without a chance to clean up, its servers end.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Server:
    """A child process that listens on `port`."""

    def __init__(self, name, command, port, log, environment=None):
        self.name, self.port, self.log = name, port, pathlib.Path(log)
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **(environment or {})}, preexec_fn=_end_with_parent)

    def wait_until_listening(self, seconds=30):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.05)
        raise Failed(f"{self.name} does not listen on port {self.port}:\n{self.tail()}")

    def tail(self):
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])

    def cpu_seconds(self):
        """User and system time of the process, its threads and its children so far."""
        return sum(_cpu_ticks(pid) for pid in _family(self.process.pid)) / TICKS_PER_SECOND

    def stop(self):
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _stat(pid):
    # The second field is the command in brackets and may hold spaces.
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2:].split()


def _cpu_ticks(pid):
    try:
        fields = _stat(pid)
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _family(root):
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(_stat(entry.name)[1])
            except OSError:
                continue  # It ended while we looked.
    family, grown = {root}, True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in family}
        grown = not children <= family
        family |= children
    return family


def raw_exchange(port, method, path, body=b""):
    """One request over a plain socket: status, size of the answer's head, its body."""
    head = (f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode() + body)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        raise Failed(f"port {port} answered no HTTP: {answer[:200]!r}")
    return int(head.split()[1]), len(head) + len(separator), body


def load(server, method, path, body, seconds, connections, threads):
    """Runs wrk against `server`; requests, latencies and the server's CPU time for it."""
    script = pathlib.Path(__file__).with_name("load.lua")
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "-s", str(script),
               f"http://127.0.0.1:{server.port}{path}"]
    environment = {**os.environ, "BENCH_METHOD": method, "BENCH_BODY": body}
    before = server.cpu_seconds()
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    cpu = server.cpu_seconds() - before
    line = next((line for line in finished.stdout.splitlines() if line.startswith("{")), None)
    if finished.returncode != 0 or line is None:
        raise Failed(f"wrk failed on {server.name}:\n{finished.stdout}{finished.stderr}{server.tail()}")
    result = json.loads(line)
    if result["requests"] == 0 or result["socket_errors"] > 0:
        raise Failed(f"wrk met errors on {server.name}: {line}\n{server.tail()}")
    result["rps"] = result["requests"] * 1e6 / result["duration_us"]
    result["cpu_us"] = cpu * 1e6 / result["requests"]
    return result


def say(text):
    print(text, file=sys.stderr, flush=True)
