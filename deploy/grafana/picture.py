#!/usr/bin/env python3
"""Draws docs/images/dashboard.svg: the panels of kms.json, from data that a real
Prometheus scraped from a real service under a mixed load.

    cargo build --release && python3 deploy/grafana/picture.py --minutes 10

Needs `prometheus` (see `make tools`) and nothing beyond Python's own library. The service
runs in production mode with the files of `kms dev-pki`, on loopback, in a scratch folder.
"""

import argparse, base64, contextlib, http.client, json, math, os, pathlib, random, re
import shlex, signal, ssl, subprocess, tempfile, threading, time, urllib.parse, urllib.request
from xml.sax.saxutils import escape

PROJECT = pathlib.Path(__file__).resolve().parents[2]
DASHBOARD = PROJECT / "deploy/grafana/kms.json"
PICTURE = PROJECT / "docs/images/dashboard.svg"
RULES = PROJECT / "deploy/prometheus"
SCOPE = {"tenant_id": "acme", "environment": "prod", "plane": "tenant"}
STEPS = 90  # points of a line
SCRAPE, RATE = "2s", "20s"


# --- The service, the scraper and the load ------------------------------------------


@contextlib.contextmanager
def running(command, **options):
    process = subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def wait_for(process, pattern):
    for line in process.stdout:
        if found := re.search(pattern, line):
            threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
            return found
    raise SystemExit(f"{process.args[0]} ended without {pattern}")


class Client:
    """A module with its certificate, on one connection at a time."""

    def __init__(self, pki, kms, address):
        self.pki, self.kms, self.address = pki, kms, address
        self.tls = ssl.create_default_context(cafile=pki / "ca.pem")
        self.tls.load_cert_chain(pki / "client-M27.pem", pki / "client-M27.key")
        self.connection = None

    def ask(self, path, body=None, approval=None):
        self.connection = self.connection or http.client.HTTPSConnection(self.address, context=self.tls)
        headers = {"Content-Type": "application/json"} | ({"X-Approval-Token": approval} if approval else {})
        sent = json.dumps(SCOPE | body) if body is not None else None
        try:
            self.connection.request("GET" if body is None else "POST", "/kms/v1/" + path, sent, headers)
            return json.loads(self.connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            self.connection.close()
            self.connection = None
            return {}

    def approved(self, operation, path, body, *arguments):
        key = self.pki / "approver-alice.pem"
        token = subprocess.run(
            [self.kms, "approve", "--signing-key", key, "--approver", "alice", "--operation", operation,
             "--tenant", "acme", "--environment", "prod", "--plane", "tenant", *arguments],
            check=True, capture_output=True, text=True).stdout.strip()
        return self.ask(path, body, token)

    def make_key(self, key_type, usage, limit=100_000):
        body = {"key_type": key_type, "key_usage": usage, "access_policy": {"max_usage_per_day": limit}}
        made = self.approved("key_generate", "keys", body, "--key-type", key_type, "--key-usage", ",".join(usage))
        return made["key_id"]


def load(client, seconds, started):
    """What modules do all day, with some of what goes wrong."""
    pairs = ["sign", "verify"]
    signing = [client.make_key(kind, pairs) for kind in ["Ed25519", "RSA-2048"]]
    secret = client.make_key("AES-256", ["encrypt", "decrypt"])
    scarce = client.make_key("Ed25519", pairs, 100)
    dice, data = random.Random(1), base64.b64encode(b"x" * 200).decode()
    signed, sealed = {}, {}
    while (now := time.monotonic() - started) < seconds:
        pace = 20 + 15 * math.sin(now / 40) + (25 if 0.5 < now / seconds < 0.7 else 0)
        time.sleep(dice.expovariate(pace))
        key, throw = dice.choice(signing), dice.random()
        if throw < 0.35 or key not in signed:
            signed[key] = client.ask("sign", {"key_id": key, "data": data}).get("signature", "")
        elif throw < 0.65:
            client.ask("verify", {"key_id": key, "data": data, "signature": signed[key]})
        elif throw < 0.78 or not sealed:
            sealed = client.ask("encrypt", {"key_id": secret, "plaintext": data})
        elif throw < 0.90:
            client.ask("decrypt", {"key_id": secret, "ciphertext": sealed.get("ciphertext", ""), "iv": sealed.get("iv", "")})
        elif throw < 0.95:
            client.ask(f"keys/{key}?" + urllib.parse.urlencode(SCOPE))
        elif throw < 0.965:
            client.ask("sign", {"key_id": scarce, "data": data})
        elif throw < 0.975:
            client.ask("sign", {"key_id": "alias/nobody", "data": data})
        elif throw < 0.985:
            kind = dice.choice(["RSA-2048", "RSA-2048", "Ed25519"])
            client.make_key(kind, pairs)
        elif throw < 0.99:
            client.ask("keys", {"key_type": "Ed25519", "key_usage": pairs}, "not-an-approval")
        elif throw < 0.995:
            new = client.approved("key_rotate", f"keys/{signing[0]}/rotate", {}, "--key-id", signing[0])
            signing[0] = new.get("new_key_id", signing[0])
        else:
            # A new connection now and then; some without a certificate.
            client.connection = client.connection and client.connection.close()
            with contextlib.suppress(OSError, http.client.HTTPException):
                bare = ssl.create_default_context(cafile=client.pki / "ca.pem")
                nobody = http.client.HTTPSConnection(client.address, context=bare, timeout=5)
                nobody.request("GET", "/kms/v1/config")
                nobody.getresponse()


def scraped(kms, minutes, draw):
    """Runs everything for so long, and then lets `draw` ask Prometheus."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        pki = scratch / "pki"
        subprocess.run([kms, "dev-pki", "--out", pki], check=True, capture_output=True)
        settings = {"KMS__SERVER__LISTEN": "127.0.0.1:0", "KMS__SERVER__OPS_LISTEN": "127.0.0.1:0",
                    "KMS__DATA_DIR": str(scratch / "data"), "KMS__LOG__LEVEL": "info", "KMS__LOG__FORMAT": "text",
                    "KMS__HSM__SOFTWARE__RSA_STOCK": "24"}
        shell = f". {shlex.quote(str(pki / 'kms.env'))} && exec env -0"
        files = subprocess.run(["sh", "-c", shell], env={}, check=True, capture_output=True, text=True).stdout
        environment = dict(pair.split("=", 1) for pair in files.split("\0") if "=" in pair) | settings
        with running([kms, "serve"], env=environment, cwd=scratch) as service:
            found = wait_for(service, r" api=(\S+) operations=(\S+)")
            text = (RULES / "prometheus.yml").read_text().replace("127.0.0.1:9002", found[2])
            text = text.replace(": 15s", f": {SCRAPE}").replace("- recording", f"- {RULES}/recording").replace("- alerts", f"- {RULES}/alerts")
            (scratch / "prometheus.yml").write_text(text)
            with running(["prometheus", f"--config.file={scratch}/prometheus.yml", f"--storage.tsdb.path={scratch}/tsdb",
                          "--web.listen-address=127.0.0.1:0"]) as prometheus:
                address = wait_for(prometheus, r'"Listening on" address=(\S+)')[1]
                started = time.monotonic()
                port = found[1].rsplit(":", 1)[1]
                clients = [Client(pki, kms, f"localhost:{port}") for _ in range(2)]
                threads = [threading.Thread(target=load, args=(one, minutes * 60, started)) for one in clients]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                draw(address, minutes * 60)


def series(address, expression, seconds):
    """(label set, points) of each line, the last `seconds`."""
    for name, value in {"$__rate_interval": RATE, "$job": "kms", "$instance": ".*"}.items():
        expression = expression.replace(name, value)
    end = time.time()
    query = urllib.parse.urlencode({"query": expression, "start": end - seconds, "end": end, "step": seconds / STEPS})
    with urllib.request.urlopen(f"http://{address}/api/v1/query_range?{query}", timeout=30) as answer:
        lines = json.load(answer)["data"]["result"]
    return end, [(line["metric"], [(float(t), float(v)) for t, v in line["values"] if v != "NaN"]) for line in lines]


# --- The drawing --------------------------------------------------------------------

WIDTH, ROW, HEAD = 1440, 30, 34
COLOURS = ["#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300"]


def shown(value, unit):
    """A number as the dashboard would write it."""
    if unit == "percentunit":
        return f"{value * 100:.3g}%"
    if unit == "bytes":
        for prefix in ["", "Ki", "Mi", "Gi", "Ti"]:
            if value < 1024:
                return f"{value:.3g} {prefix}B"
            value /= 1024
    if unit == "s" and value >= 86_400:
        return f"{value / 86_400:.3g} d"
    ending = {"ms": " ms", "s": " s", "reqps": " req/s", "ops": "/s"}.get(unit, "")
    return f"{value:,.0f}{ending}" if value >= 1000 else f"{value:.3g}{ending}"


def label(pattern, labels):
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), pattern)


def text(x, y, words, size=11, colour="#c7d0d9", anchor="start", weight="normal"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{escape(words)}</text>')


def panel(x, y, w, h, one, address, seconds):
    defaults = one["fieldConfig"]["defaults"]
    unit, custom = defaults["unit"], defaults.get("custom", {})
    out = [f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="3" fill="#1f1f20" stroke="#2c3235"/>',
           text(x + 8, y + 17, one["title"], 12, "#d8d9da", weight="bold")]
    lines = []
    for target in one["targets"]:
        end, found = series(address, target["expr"], seconds)
        lines += [(label(target["legendFormat"], labels), points) for labels, points in found if points]
    if one["type"] == "stat":
        value = lines[-1][1][-1][1] if lines else math.nan
        steps = defaults.get("thresholds", {}).get("steps", [])
        colour = next((s["color"] for s in reversed(steps) if s["value"] is None or value >= s["value"]), "green")
        colour = {"green": "#73bf69", "red": "#f2495c", "orange": "#ff9830"}[colour]
        return out + [text(x + w / 2, y + h / 2 + 22, shown(value, unit), 30, colour, "middle")]
    left, right, top, bottom = x + 62, x + w - 10, y + 28, y + h - 40
    if not lines:
        return out + [text(x + w / 2, y + h / 2, "nothing of it happened", 11, "#8e8e8e", "middle")]
    if "stacking" in custom:
        below = {}
        for _, points in lines:
            for place, (t, v) in enumerate(points):
                below[t] = v + below.get(t, 0)
                points[place] = (t, below[t])
    logarithmic = custom.get("scaleDistribution", {}).get("type") == "log"
    values = [v for _, points in lines for _, v in points if not logarithmic or v > 0] or [1]
    low, high = min(values), max(max(values), defaults.get("max", 0))
    if logarithmic:
        low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high) + 1e-9)
        scale = lambda v: math.log(max(v, low) / low) / math.log(high / low or 10)
        ticks = [10 ** p for p in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    else:
        low, high = min(0, low), (high or 1) * 1.05
        scale = lambda v: (v - low) / (high - low)
        ticks = [low + (high - low) * part / 4 for part in range(5)]
    at = lambda v: bottom - scale(v) * (bottom - top)
    for tick in ticks:
        out += [f'<path d="M{left} {at(tick):.0f}H{right}" stroke="#2c3235"/>', text(left - 5, at(tick) + 4, shown(tick, unit), 9, "#8e8e8e", "end")]
    for place, (_, points) in enumerate(lines):
        colour = COLOURS[place % len(COLOURS)]
        path = "".join(f"{'L' if i else 'M'}{left + (t - end + seconds) / seconds * (right - left):.0f} {at(v):.0f}" for i, (t, v) in enumerate(points))
        out.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
    where = x + 10
    for place, (name, _) in enumerate(lines):
        name = re.sub(r"127\.0\.0\.1:\d+", "kms-0", name) or "value"
        if where + 7 * len(name) + 20 > right:
            out.append(text(where, y + h - 10, "…", 10))
            break
        out += [f'<rect x="{where}" y="{y + h - 17}" width="10" height="3" fill="{COLOURS[place % len(COLOURS)]}"/>', text(where + 14, y + h - 12, name, 10)]
        where += 5.6 * len(name) + 26
    return out


def draw(address, seconds):
    dashboard = json.loads(DASHBOARD.read_text())
    places = [one["gridPos"] for one in dashboard["panels"]]
    height = max(p["y"] + p["h"] for p in places) * ROW + HEAD
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="Inter,Helvetica,Arial,sans-serif">',
           f'<rect width="{WIDTH}" height="{height}" fill="#111217"/>',
           text(12, 23, f"{dashboard['title']}: {seconds // 60} minutes of a mixed load", 15, "#d8d9da", weight="bold")]
    for one in dashboard["panels"]:
        p = one["gridPos"]
        x, y, w, h = p["x"] * WIDTH // 24 + 4, p["y"] * ROW + HEAD, p["w"] * WIDTH // 24 - 8, p["h"] * ROW - 6
        out += [text(x + 4, y + 19, "▾ " + one["title"], 13, "#d8d9da", weight="bold")] if one["type"] == "row" else panel(x, y, w, h, one, address, seconds)
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text("\n".join(out + ["</svg>"]) + "\n")
    print(f"{PICTURE}: {PICTURE.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--kms", default=PROJECT / "target/release/kms", help="the binary; target/release/kms by default")
    wanted = parser.parse_args()
    scraped(os.fspath(pathlib.Path(wanted.kms).resolve()), wanted.minutes, draw)


if __name__ == "__main__":
    main()
