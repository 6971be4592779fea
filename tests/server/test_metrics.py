"""Counts for Prometheus, as its own parser reads them."""

from __future__ import annotations

from pathlib import Path

from live import Assistant, assistant
from prometheus_client.parser import text_string_to_metric_families

SECRET = "treasure"
BODY = {"messages": [{"role": "user", "content": f"Where is the {SECRET}?"}], "max_tokens": 8}


def samples(server: Assistant, **headers: str) -> dict[tuple[str, ...], float]:
    """Values by name and labels."""
    status, found, raw = server.request("GET", "/metrics", headers=headers)
    assert (status, found["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert SECRET not in raw.decode()
    families = list(text_string_to_metric_families(raw.decode()))
    assert all(family.documentation and family.type != "unknown" for family in families)
    return {(s.name, *(s.labels[label] for label in sorted(s.labels))): s.value for f in families for s in f.samples}


def test_what_was_asked_is_counted(llama: Path) -> None:
    with assistant(llama) as server:
        before = samples(server)
        assert before["sgft_edge_first_token_seconds_count",] == 0
        replies = [server.chat(BODY)[2] for _ in range(2)]
        assert server.chat({**BODY, "stream": True})[0] == 200
        assert server.chat({**BODY, "max_tokens": 0})[0] == 400
        for path in (f"/v1/models/{SECRET}", f"/{SECRET}", f"/web/{SECRET}"):
            assert server.request("GET", path)[0] == 404
        after = samples(server)
    requests = "sgft_edge_requests_total"
    assert after[requests, "/v1/chat/completions", "200"] == 3
    assert after[requests, "/v1/chat/completions", "400"] == 1
    assert after[requests, "/metrics", "200"] == 1
    for path in ("/v1/models/{name}", "other", "/web/{path}"):
        assert after[requests, path, "404"] == 1
    for kind in ("read", "decoded", "reused"):
        assert before["sgft_edge_tokens_total", kind] == 0
    decoded = sum(reply["usage"]["completion_tokens"] for reply in replies)
    assert decoded < after["sgft_edge_tokens_total", "decoded"] <= decoded + BODY["max_tokens"]
    prompt = replies[0]["usage"]["prompt_tokens"]
    assert after["sgft_edge_tokens_total", "read"] + after["sgft_edge_tokens_total", "reused"] == 3 * prompt
    first = "sgft_edge_first_token_seconds"
    assert after[f"{first}_count",] == after[f"{first}_bucket", "+Inf"] == 3
    assert 0 < after[f"{first}_sum",] < 30
    buckets = [value for (name, *_), value in after.items() if name == f"{first}_bucket"]
    assert buckets == sorted(buckets)
    assert after["sgft_edge_requests_running",] == after["sgft_edge_requests_waiting",] == 0
    assert 10**7 < after["sgft_edge_memory_bytes",] <= after["sgft_edge_peak_memory_bytes",]


def test_counts_need_the_key(llama: Path) -> None:
    with assistant(llama, key="secret") as server:
        assert server.request("GET", "/metrics")[0] == 401
        assert samples(server, Authorization="Bearer secret")["sgft_edge_requests_total", "/metrics", "401"] == 1
