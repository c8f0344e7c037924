"""Alerts against servers of our own on 127.0.0.1: what arrives, what a failing server leads to, and that no secret is told."""

from __future__ import annotations

import json
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from marketing_assets.alerts import AlertError, send_alert
from marketing_assets.config import Store
from marketing_assets.control import read_requests, request_file
from marketing_assets_tests.conftest import LAST
from marketing_assets_tests.test_orchestration import live_ledger, tick, write_verdict

SECRET_PATH, PASSWORD = "/services/T000/B000/very-secret-token", "hunter2-very-secret"
SUBJECT, TEXT = "drift: calibration", "shop 2026-08-11: calibration since 2026-08-09"


def store_with(**alerts: Any) -> Store:
    source = {"files": "x", "columns": {"*": "*"}}
    content = {"name": "Lädchen", "timezone": "UTC", "currency": "EUR", "first_day": "2026-01-01", "sources": {"events": source}}
    return Store.model_validate({**content, "alerts": alerts})


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]  # type: ignore[misc]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Webhook(ThreadingHTTPServer):
    """A Slack-compatible webhook: takes JSON with a text; answers with `status`."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.received: list[tuple[str, str | None, Any]] = []
        super().__init__(("127.0.0.1", 0), _Posted)


class _Posted(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers["Content-Type"], json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"ok" if self.server.status < 400 else self.path.encode())  # servers repeat addresses

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Mail(socketserver.ThreadingTCPServer):
    """As much of an SMTP server as a client needs. refuse: a command answered with an error."""

    daemon_threads = True

    def __init__(self, *, refuse: str = "", context: ssl.SSLContext | None = None) -> None:
        self.refuse, self.context = refuse, context
        self.commands: list[str] = []
        self.messages: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Session)


class _Session(socketserver.StreamRequestHandler):
    server: Mail

    def say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def handle(self) -> None:
        self.say("220 here")
        while line := self.rfile.readline().decode().strip():
            command = line.split()[0].upper()
            self.server.commands.append(line)
            if command == self.server.refuse:
                self.say(f"550 no {command} today")
            elif command == "EHLO":
                can_encrypt = self.server.context is not None and not isinstance(self.request, ssl.SSLSocket)
                self.say("250-here", *(["250-STARTTLS"] if can_encrypt else []), "250 AUTH PLAIN")
            elif command == "STARTTLS" and self.server.context is not None:
                self.say("220 go on")
                self.request = self.server.context.wrap_socket(self.request, server_side=True)
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", buffering=0)
            elif command == "AUTH":
                self.say("235 welcome")
            elif command == "DATA":
                self.say("354 go on")
                lines = []
                while (data := self.rfile.readline()) != b".\r\n":
                    lines.append(data)
                self.server.messages.append(b"".join(lines))
                self.say("250 taken")
            elif command == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")


@pytest.fixture
def nobody() -> int:
    """A port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# --- delivery ---------------------------------------------------------------------------------------------------------


def test_a_webhook_gets_what_slack_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(server := Webhook()) as port:
        monkeypatch.setenv("OUR_HOOK", f"http://127.0.0.1:{port}{SECRET_PATH}")
        assert send_alert(store_with(webhook_variable="OUR_HOOK"), SUBJECT, TEXT) == ["webhook"]
    assert server.received == [(SECRET_PATH, "application/json", {"text": f"*{SUBJECT}*\n{TEXT}"})]


def test_a_mail_reaches_everyone_named() -> None:
    with serving(server := Mail()) as port:
        store = store_with(mail_to=["a@shop.test", "b@shop.test"], mail_from="us@shop.test", mail_port=port)
        assert send_alert(store, f"{SUBJECT}\nBcc: else@where.test", f"{TEXT} – früh") == ["e-mail"]
    (raw,) = server.messages
    message = message_from_bytes(raw, policy=policy.default)
    # a line break in a subject must not become a header of its own
    assert str(message["Subject"]) == f"[Lädchen] {SUBJECT} Bcc: else@where.test" and message["Bcc"] is None
    assert (message["From"], message["To"]) == ("us@shop.test", "a@shop.test, b@shop.test")
    assert message.get_content().strip() == f"{TEXT} – früh"
    recipients = [line for line in server.commands if line.upper().startswith("RCPT")]
    assert [line.split("<")[1].split(">")[0] for line in recipients] == ["a@shop.test", "b@shop.test"]


def test_without_a_channel_nobody_is_told() -> None:
    assert send_alert(store_with(), SUBJECT, TEXT) == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 with its key, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here: a certificate cannot be made")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    asked = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{path}.key", "-out", f"{path}.crt"]
    subprocess.run([*asked, *files], check=True, capture_output=True)
    path.write_text(Path(f"{path}.key").read_text() + Path(f"{path}.crt").read_text())
    return path


def mail_server(certificate: Path) -> Mail:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return Mail(context=context)


def test_a_password_is_sent_encrypted_to_a_server_that_proves_itself(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_PASSWORD", PASSWORD)
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    with serving(server := mail_server(certificate)) as port:
        store = store_with(mail_to=["a@shop.test"], mail_port=port, mail_password_variable="OUR_PASSWORD")
        assert send_alert(store, SUBJECT, TEXT) == ["e-mail"]
    commands = [line.split()[0].upper() for line in server.commands]
    assert commands.index("STARTTLS") < commands.index("AUTH") and len(server.messages) == 1


def test_a_password_goes_to_no_stranger_and_never_in_clear(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_PASSWORD", PASSWORD)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    for server in (mail_server(certificate), Mail()):  # a certificate nobody vouches for; no encryption at all
        with serving(server) as port:
            store = store_with(mail_to=["a@shop.test"], mail_port=port, mail_password_variable="OUR_PASSWORD")
            with pytest.raises(AlertError, match=r"e-mail: (SSLCertVerificationError|SMTPNotSupportedError)") as raised:
                send_alert(store, SUBJECT, TEXT)
        assert PASSWORD not in str(raised.value)
        assert not [line for line in server.commands if line.upper().startswith("AUTH")] and not server.messages


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_webhook_that_refuses_is_named_without_its_address(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Webhook(status)) as port:
        monkeypatch.setenv("OUR_HOOK", f"http://127.0.0.1:{port}{SECRET_PATH}")
        with pytest.raises(AlertError, match=f"'{SUBJECT}' not delivered: webhook: the server answered {status}") as raised:
            send_alert(store_with(webhook_variable="OUR_HOOK"), SUBJECT, TEXT)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:{}" + SECRET_PATH, "ftp://127.0.0.1:{}" + SECRET_PATH, "http://127.0.0.1:x{}" + SECRET_PATH,
                "http://127.0.0.1:{}/very secret path"],
)  # fmt: skip
def test_an_address_that_leads_nowhere_is_not_repeated(address: str, nobody: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_HOOK", address.format(nobody))
    with pytest.raises(AlertError, match="webhook: ") as raised:
        send_alert(store_with(webhook_variable="OUR_HOOK"), SUBJECT, TEXT)
    assert "secret" not in str(raised.value)


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUR_HOOK", raising=False)
    with pytest.raises(AlertError, match=r"OUR_HOOK, named under 'alerts' in store.yaml, is not set"):
        send_alert(store_with(webhook_variable="OUR_HOOK"), SUBJECT, TEXT)


@pytest.mark.parametrize(("refuse", "named"), [("MAIL", "SMTPSenderRefused"), ("RCPT", "SMTPRecipientsRefused"), ("DATA", "SMTPDataError")])
def test_a_mail_server_that_refuses_is_named(refuse: str, named: str) -> None:
    with serving(Mail(refuse=refuse)) as port, pytest.raises(AlertError, match=f"e-mail: {named}"):
        send_alert(store_with(mail_to=["a@shop.test"], mail_port=port), SUBJECT, TEXT)


def test_one_dead_channel_does_not_silence_the_other(nobody: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(server := Webhook()) as port:
        monkeypatch.setenv("OUR_HOOK", f"http://127.0.0.1:{port}{SECRET_PATH}")
        with pytest.raises(AlertError, match="e-mail: ConnectionRefusedError") as raised:
            send_alert(store_with(webhook_variable="OUR_HOOK", mail_to=["a@shop.test"], mail_port=nobody), SUBJECT, TEXT)
    assert len(server.received) == 1 and raised.value.told == ("webhook",)


# --- the sensor -------------------------------------------------------------------------------------------------------


def alerting(store: Store, **alerts: Any) -> Store:
    return store.model_copy(update={"alerts": type(store.alerts).model_validate(alerts)})


def test_a_dead_webhook_delays_no_repair_and_is_tried_again(
    shop_at: Callable[..., Store], nobody: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The request and its run go out at once; people are told as soon as anyone can be, and once."""
    store = alerting(shop_at(), webhook_variable="OUR_HOOK")
    monkeypatch.setenv("OUR_HOOK", f"http://127.0.0.1:{nobody}{SECRET_PATH}")
    with dg.DagsterInstance.ephemeral() as instance:
        live_ledger(store, instance, {"dagster/partition": LAST.isoformat()})
        write_verdict(store, LAST, "refit", "response_rates")
        first = tick(store, "drift_verdicts", instance)
        assert [request.run_key for request in first.run_requests] == ["abc"] and first.cursor == ""
        assert len(read_requests(request_file(store, LAST))) == 1
        with serving(server := Webhook()) as port:
            monkeypatch.setenv("OUR_HOOK", f"http://127.0.0.1:{port}{SECRET_PATH}")
            second = tick(store, "drift_verdicts", instance, first.cursor)
            third = tick(store, "drift_verdicts", instance, second.cursor)
        assert not second.run_requests and second.cursor == third.cursor == "abc"
    (received,) = server.received
    assert "calibration since 2026-08-09: ads.ctr; refit response_rates" in received[2]["text"]
    out, err = capfd.readouterr()
    assert "not delivered: webhook: ConnectionRefusedError" in out + err and "secret" not in out + err


def test_a_late_day_is_told_once_even_where_the_first_try_failed(
    shop_at: Callable[..., Store], nobody: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = alerting(shop_at(), webhook_variable="OUR_HOOK")
    monkeypatch.setenv("OUR_HOOK", f"http://127.0.0.1:{nobody}{SECRET_PATH}")
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(store, "freshness", instance)
        assert first.asset_events and not first.cursor
        with serving(server := Webhook()) as port:
            monkeypatch.setenv("OUR_HOOK", f"http://127.0.0.1:{port}{SECRET_PATH}")
            second = tick(store, "freshness", instance, first.cursor)
            assert tick(store, "freshness", instance, second.cursor).cursor == second.cursor
    (received,) = server.received
    assert received[2]["text"].startswith("*not fresh*") and second.cursor == LAST.isoformat()
