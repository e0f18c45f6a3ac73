"""What a page of another site has a browser send, and a name that an attacker lets point here."""

from __future__ import annotations

from typing import Any

from tests.web_servers import http

__all__ = ["assert_takes_its_own_pages_only"]

ELSEWHERE = "https://elsewhere.example"


def assert_takes_its_own_pages_only(
    url: str, method: str, path: str, *, status: int, **body: Any
) -> None:
    """A request that changes something is refused from anywhere else, and then answered."""
    host = url.removeprefix("http://").rstrip("/")
    port = host.rpartition(":")[2]
    address = f"http://{host}{path}"
    for headers in (
        {"origin": ELSEWHERE},
        {"origin": "null"},
        # Another port is another origin, and another scheme, too; a site is neither.
        {"origin": "http://127.0.0.1:1", "sec-fetch-site": "same-site"},
        {"origin": f"http://{host}.elsewhere.example"},
        {"origin": f"{ELSEWHERE}/http://{host}"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": f"http://{host}", "sec-fetch-site": "cross-site"},
        # What a rebound name is for its page: the same origin.
        {"host": f"elsewhere.example:{port}", "origin": f"http://elsewhere.example:{port}"},
        {"host": f"127.0.0.1.elsewhere.example:{port}"},
        {"host": f"127.0.0.1@elsewhere.example:{port}"},
        {"host": "elsewhere.example", "x-forwarded-host": host},
        {"host": ""},
    ):
        refused = http.request(method, address, headers=headers, **body)
        assert refused.status_code in (400, 403), (headers, refused.text)
    rebound = {"host": f"elsewhere.example:{port}"}
    for other in ("GET", "HEAD", "OPTIONS"):
        assert http.request(other, f"http://{host}/", headers=rebound).status_code == 403, other
    assert http.get(address).status_code in (404, 405), "it takes no GET"

    for headers in (
        {"origin": f"http://{host}", "sec-fetch-site": "same-origin"},
        {"host": f"localhost:{port}", "origin": f"http://localhost:{port}"},
        {},
    ):
        answer = http.request(method, address, headers=headers, **body)
        assert answer.status_code == status, (headers, answer.text)
