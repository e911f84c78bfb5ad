"""nginx as the measure: an upstream, a proxy, and `return 402` with as many bytes as another server's answer."""

import pathlib

from rig import Failed, Server, free_port, raw_exchange

# A configuration token may have 4095 bytes, so long texts are put together from variables.
LONGEST_TEXT = 3500

CONFIG = """\
daemon off;
worker_processes 2;
worker_rlimit_nofile 8192;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 75s;
    {http}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        {server}
    }}
}}
"""


def start(directory, parts, servers):
    """Starts nginx with the http and server parts of its configuration."""
    directory = pathlib.Path(directory)
    directory.mkdir()
    port = free_port()
    http, server = parts
    config = directory / "nginx.conf"
    config.write_text(CONFIG.format(directory=directory, port=port, http=http, server=server))
    command = ["nginx", "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(config)]
    process = Server(f"nginx ({directory.name})", command, port, directory / "output.log")
    servers.append(process)
    return process.wait_until_listening()


def serving(size):
    """Answers every request with `size` bytes."""
    return "", f'location / {{ default_type application/octet-stream; return 200 "{"x" * size}"; }}'


def proxying(upstream, connections):
    """A reverse proxy as it is usually set up: kept-alive upstream connections and forwarded headers."""
    http = f"upstream app {{ server 127.0.0.1:{upstream}; keepalive {connections}; }}"
    server = """location / {
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host;
        }"""
    return http, server


def start_challenging(directory, head_size, body_size, servers):
    """Answers 402 with a head and a body of exactly these sizes."""
    probe = start(pathlib.Path(f"{directory}-probe"), _returning(body_size, 1), servers)
    status, with_one, body = raw_exchange(probe.port, "POST", "/run", b"{}")
    probe.stop()
    padding = 1 + head_size - with_one
    if status != 402 or len(body) != body_size or padding < 1:
        raise Failed(f"nginx cannot answer {head_size} + {body_size} bytes (it has {with_one} + {len(body)})")
    server = start(directory, _returning(body_size, padding), servers)
    _, head, body = raw_exchange(server.port, "POST", "/run", b"{}")
    if (head, len(body)) != (head_size, body_size):
        raise Failed(f"nginx answers {head} + {len(body)} bytes, not {head_size} + {body_size}")
    return server


def _returning(body_size, padding):
    body_sets, body = _text("body", body_size)
    pad_sets, pad = _text("pad", padding)
    return "", f"""{body_sets}{pad_sets}
        location / {{
            default_type application/json;
            add_header PAYMENT-REQUIRED {pad} always;
            return 402 {body};
        }}"""


def _text(name, size):
    """`set` lines, and the text of `size` bytes that uses them."""
    if size <= LONGEST_TEXT:
        return "", '"' + "x" * size + '"'
    sets, uses = "", ""
    for index, start_at in enumerate(range(0, size, LONGEST_TEXT)):
        part = "x" * min(LONGEST_TEXT, size - start_at)
        sets += f'set ${name}{index} "{part}";\n'
        uses += f"${{{name}{index}}}"
    return sets, f'"{uses}"'
