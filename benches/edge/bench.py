#!/usr/bin/env python3
"""The edge benchmark: galaksio against nginx on this machine, in interleaved rounds.

  passthrough  a proxied GET of 1 KiB: galaksio, and nginx as a proxy, in front of the same nginx
  challenge    POST /run of 60 bytes of JSON, unpaid: galaksio's 402, and nginx's `return 402` of as many bytes

With --floor, hyper alone (floor.rs) stands beside them: what a gateway of these libraries could reach at most.

Prints a table and writes a list of {case, target, rps, p50_us, p99_us, cpu_us, ratio}. `ratio` is requests/s
over nginx's of the same round, median of the rounds; `cpu_us` is the server's own processor time per request.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import sys
import tempfile

import nginx
from rig import Failed, Server, free_port, load, raw_exchange, say

RUN_BODY = json.dumps({"code": "print(sum(range(1000)))  #", "language": "python"}, separators=(",", ":"))
RUN_BODY = RUN_BODY.replace("#", "#" * (61 - len(RUN_BODY)))
assert len(RUN_BODY) == 60

# Something is sold, as on any gateway: only then are the readings of each path compared. Nothing is ever paid.
GALAKSIO_CONFIG = """\
[edge]
listen = ["127.0.0.1:{port}"]
[app]
url = "http://127.0.0.1:{upstream}"
[[routes]]
path = "/reports/*"
methods = ["GET"]
[[routes]]
path = "/tasks/*"
[[routes]]
path = "/exports"
methods = ["POST"]
price = "$0.001"
[[accepts]]
network = "base-sepolia"
pay_to = "0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F"
[facilitator]
url = "http://127.0.0.1:9"
[store]
path = "{store}"
[admin]
listen = "127.0.0.1:{admin}"
"""


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    servers = []
    directory = pathlib.Path(tempfile.mkdtemp(prefix="galaksio-bench-"))
    try:
        rows = bench(options, directory, servers)
    except Failed as failure:
        say(f"bench: {failure}")
        return 1
    finally:
        for server in reversed(servers):
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)
    output = pathlib.Path(options.out)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(rows, indent=2) + "\n")
    table(rows)
    print(f"\nwritten to {output}")
    return 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--galaksio", help="the release binary; without it only nginx is measured")
    parser.add_argument("--floor", help="the example binary `floor`")
    parser.add_argument("--out", default="target/bench/edge.json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--case", choices=["passthrough", "challenge"], action="append", help="default: both")
    return parser.parse_args()


def bench(options, directory, servers):
    if options.galaksio and not os.access(options.galaksio, os.X_OK):
        raise Failed(f"{options.galaksio} is not an executable; build it with `cargo build --release`")
    cases = options.case or ["passthrough", "challenge"]
    say(f"load average before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    rows = []
    for case in cases:
        if case == "passthrough":
            targets = passthrough_targets(options, directory, servers)
            rows += measure(case, targets, "GET", "/", "", 200, options)
        else:
            targets = challenge_targets(options, directory, servers)
            if targets:
                rows += measure(case, targets, "POST", "/run", RUN_BODY, 402, options)
        while servers:
            servers.pop().stop()
    return rows


def passthrough_targets(options, directory, servers):
    upstream = nginx.start(directory / "upstream", nginx.serving(1024), servers)
    proxy = nginx.start(directory / "proxy", nginx.proxying(upstream.port, options.connections), servers)
    targets = {"nginx": proxy}
    if options.galaksio:
        port = free_port()
        config = directory / "proxy.toml"
        config.write_text(GALAKSIO_CONFIG.format(
            port=port, upstream=upstream.port, admin=free_port(), store=directory / "jobs.redb"))
        command = [options.galaksio, "serve", "--config", str(config)]
        targets["galaksio"] = start(command, port, directory, servers)
    if options.floor:
        port = free_port()
        command = [options.floor, "passthrough", str(port), str(upstream.port)]
        targets["floor"] = start(command, port, directory, servers)
    return targets


def challenge_targets(options, directory, servers):
    if not options.galaksio:
        say("challenge: skipped, since nginx is held to galaksio's 402 and there is no galaksio")
        return {}
    port = free_port()
    command = [options.galaksio, "demo", "--quiet", "--listen", f"127.0.0.1:{port}"]
    galaksio = start(command, port, directory, servers)
    status, head, body = raw_exchange(port, "POST", "/run", RUN_BODY.encode())
    if status != 402:
        raise Failed(f"galaksio answered {status} to an unpaid POST /run: {body[:300]!r}")
    # wrk keeps its connections, so the size that counts is without `connection: close` on either side; both send it here.
    challenge = nginx.start_challenging(directory / "challenge", head, len(body), servers)
    targets = {"nginx": challenge, "galaksio": galaksio}
    if options.floor:
        targets["floor"] = start_floor(options.floor, head, len(body), directory, servers)
    return targets


def start_floor(binary, head, body, directory, servers):
    """Answers 402 with a head and a body of exactly these sizes."""
    def floor(padding):
        port = free_port()
        return start([binary, "challenge", str(port), str(padding), str(body)], port, directory, servers)

    probe = floor(1)
    _, with_one, _ = raw_exchange(probe.port, "POST", "/run", b"{}")
    servers.remove(probe)
    probe.stop()
    return floor(1 + head - with_one)


def start(command, port, directory, servers):
    # Overrides of the caller's environment would change what is measured.
    quiet = {name: "" for name in ("PORT", "BROKER_WALLET", "X402_FACILITATOR_URL", "RUST_LOG")}
    server = Server(pathlib.Path(command[0]).name, command, port, directory / f"galaksio-{port}.log", quiet)
    servers.append(server)
    return server.wait_until_listening()


def measure(case, targets, method, path, body, status, options):
    for server in targets.values():
        got, *_ = raw_exchange(server.port, method, path, body.encode())
        if got != status:
            raise Failed(f"{server.name} answered {got} to {method} {path}, not {status}:\n{server.tail()}")
    threads = min(2, os.cpu_count() or 1)
    run = lambda server, seconds: load(server, method, path, body, seconds, options.connections, threads)
    for server in targets.values():
        run(server, 1)  # warm up: connections, caches, page faults
    results = {name: [] for name in targets}
    for number in range(options.rounds):
        order = list(targets.items())
        for name, server in order if number % 2 == 0 else reversed(order):
            result = run(server, options.seconds)
            errors = result["requests"] if status >= 400 else 0
            # wrk counts the last, unfinished batch differently by a few requests.
            if abs(result["status_errors"] - errors) > options.connections:
                raise Failed(f"{name}: {result['status_errors']} of {result['requests']} answers had a status of 400 or more")
            results[name].append(result)
        rates = ", ".join(f"{name} {results[name][-1]['rps']:,.0f}/s" for name in targets)
        say(f"{case} round {number + 1}/{options.rounds}: {rates}")
    return [row(case, name, results[name], results["nginx"]) for name in targets]


def row(case, target, results, baseline):
    median = lambda key: statistics.median(result[key] for result in results)
    ratios = [result["rps"] / base["rps"] for result, base in zip(results, baseline)]
    return {
        "case": case, "target": target, "rps": round(median("rps")), "p50_us": round(median("p50_us")),
        "p99_us": round(median("p99_us")), "cpu_us": round(median("cpu_us"), 1),
        "ratio": round(statistics.median(ratios), 3),
    }


def table(rows):
    print(f"\n{'case':<12} {'target':<10} {'requests/s':>10} {'of nginx':>9} {'p50 us':>8} {'p99 us':>8} {'CPU us':>7}")
    for row in rows:
        print(f"{row['case']:<12} {row['target']:<10} {row['rps']:>10,} {row['ratio']:>9.2f} "
              f"{row['p50_us']:>8,} {row['p99_us']:>8,} {row['cpu_us']:>7.1f}")


if __name__ == "__main__":
    sys.exit(main())
