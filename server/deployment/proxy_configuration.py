"""What nginx is told: TLS in, and of Flower's paths only those that a SuperNode needs. No IO.

Flower serves nodes, apps and operators at one port, and asks an operator for nothing. The proxy is
what keeps devices from starting runs and registering nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.wire.app_pin import APP_PIN_PATH

from .place import INNER_NAME, LOOPBACK

if TYPE_CHECKING:
    from .place import Deployment

NODE_PATHS = (
    "/v1/fleet/activate-node",
    "/v1/fleet/deactivate-node",
    "/v1/fleet/send-node-heartbeat",
    "/v1/fleet/pull-messages",
    "/v1/fleet/push-messages",
    "/v1/fleet/get-run",
    "/v1/fleet/get-fab",
    "/v1/fleet/push-object",
    "/v1/fleet/pull-object",
    "/v1/fleet/confirm-message-received",
)
"""What a SuperNode with a registered key calls. Nodes do not register themselves: an operator does,
by /v1/control/register-node, so that /v1/fleet/register-node stays shut with all the rest."""
MOST_BODY = "4m"
"""Of one request. A node sends a sum of 2,493 numbers of 8 bytes, in pieces; ours has 20 kB."""
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305"
)
"""For TLS 1.2; the fleet's certificates are on P-256."""
CONNECTIONS_PER_ADDRESS = 200
BURST_S = 8
"""Seconds' worth of requests that may come at once: a message is fetched piece by piece."""


def proxy_configuration(
    deployment: Deployment, *, user: str | None = None, with_ipv6: bool = True
) -> str:
    """Return the text of `nginx.conf`, for an nginx of the deployment's own.

    Args:
        deployment: whose proxy it is.
        user: as whom the workers run; None: as whoever starts it, who is not root.
        with_ipv6: whether this machine has IPv6, where all its addresses are listened at.
    """
    top = [
        "# Written by 'fedcell rounds deployment'; it writes this anew.",
        *([f"user {user};"] if user else []),
        "worker_processes auto;",
        f"pid {deployment.nginx / 'nginx.pid'};",
        "error_log stderr warn;",
        "events {",
        "    worker_connections 4096;",
        "}",
        "http {",
    ]
    http = [
        *_http(deployment),
        "server {",
        *_indented(_server(deployment, with_ipv6=with_ipv6)),
        "}",
    ]
    return "\n".join([*top, *_indented(http), "}"]) + "\n"


def _http(deployment: Deployment) -> list[str]:
    scratch = deployment.nginx
    return [
        "server_tokens off;",
        "default_type application/octet-stream;",
        *(
            f"{kind}_temp_path {scratch / kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ),
        # What was refused or failed is said; what passed is the SuperLink's to say.
        "map $status $is_told { ~^[23] 0; default 1; }",
        "log_format told '$time_iso8601 $remote_addr \"$request_method $uri\" $status';",
        f"access_log {deployment.logs / 'refused.log'} told if=$is_told;",
        f"limit_req_zone $binary_remote_addr zone=asks:8m rate={deployment.requests_per_s}r/s;",
        "limit_conn_zone $binary_remote_addr zone=held:8m;",
        "upstream superlink {",
        f"    server {LOOPBACK}:{deployment.inner_port} max_fails=0;",
        "    keepalive 32;",
        "}",
    ]


def _server(deployment: Deployment, *, with_ipv6: bool) -> list[str]:
    lines = [
        *_listen(deployment, with_ipv6=with_ipv6),
        f"ssl_certificate {deployment.certificate};",
        f"ssl_certificate_key {deployment.key};",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        f"ssl_ciphers {CIPHERS};",
        "ssl_prefer_server_ciphers off;",
        "ssl_session_cache shared:sessions:4m;",
        "ssl_session_tickets off;",
        f"client_max_body_size {MOST_BODY};",
        "client_body_buffer_size 1m;",
        "client_header_timeout 15s;",
        "client_body_timeout 30s;",
        "send_timeout 30s;",
        "keepalive_timeout 65s;",
        "large_client_header_buffers 4 8k;",
        # 503: a node tries again after it; after other refusals it gives up.
        f"limit_req zone=asks burst={deployment.requests_per_s * BURST_S} nodelay;",
        "limit_req_status 503;",
        f"limit_conn held {CONNECTIONS_PER_ADDRESS};",
        "limit_conn_status 503;",
        "proxy_http_version 1.1;",
        'proxy_set_header Connection "";',
        f"proxy_set_header Host {INNER_NAME};",
        "proxy_connect_timeout 5s;",
        "proxy_read_timeout 60s;",
        "proxy_max_temp_file_size 0;",
        "proxy_buffers 16 64k;",
        "proxy_buffer_size 64k;",
        "proxy_busy_buffers_size 128k;",
        "proxy_next_upstream off;",
        "proxy_ssl_verify on;",
        f"proxy_ssl_trusted_certificate {deployment.inner_authority};",
        f"proxy_ssl_name {INNER_NAME};",
        "proxy_ssl_session_reuse on;",
    ]
    for path in NODE_PATHS:
        # The path is written out, so that what nginx matched is what the SuperLink is asked.
        lines += [
            f"location = {path} {{",
            "    limit_except POST { deny all; }",
            f"    proxy_pass https://superlink{path};",
            "}",
        ]
    return [
        *lines,
        f"location = {APP_PIN_PATH} {{",
        "    limit_except GET { deny all; }",
        "    default_type application/json;",
        f"    alias {deployment.pin};",
        "}",
        "location / {",
        "    return 403;",
        "}",
    ]


def _listen(deployment: Deployment, *, with_ipv6: bool) -> list[str]:
    if deployment.listen:
        address = f"[{deployment.listen}]" if ":" in deployment.listen else deployment.listen
        return [f"listen {address}:{deployment.port} ssl;"]
    other = [f"listen [::]:{deployment.port} ssl ipv6only=on;"] if with_ipv6 else []
    return [f"listen {deployment.port} ssl;", *other]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
