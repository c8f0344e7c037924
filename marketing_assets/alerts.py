"""Telling people outside: a Slack-compatible webhook and e-mail.

What belongs here: sending one short text. What does not: deciding what is worth telling (drift/, catch_up.py). Addresses and
passwords come from environment variables that store.yaml names, so that no secret stands in a file.
"""

from __future__ import annotations

import http.client
import json
import os
import smtplib
import ssl
import urllib.error
import urllib.request
from email.message import EmailMessage

from marketing_assets.config import Store

TIMEOUT_SECONDS = 10


class AlertError(Exception):
    """An alert that could not be delivered, with the channel and why; `told` are the channels it did reach.

    Neither the webhook's address, which is a secret, nor a password is part of the message.
    """

    def __init__(self, message: str, told: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.told = told


def send_alert(store: Store, subject: str, text: str) -> list[str]:
    """Send to every channel store.yaml names; returns the channels told, [] where there is none.

    Raises AlertError where a channel refuses, after the other channels were tried.
    """
    settings = store.alerts
    told, problems = [], []
    if settings.webhook_variable:
        try:
            _post(_from_environment(settings.webhook_variable), f"*{subject}*\n{text}")
            told.append("webhook")
        except (OSError, ValueError, http.client.HTTPException, AlertError) as error:
            problems.append(f"webhook: {_without_address(error)}")
    if settings.mail_to:
        try:
            _mail(store, subject, text)
            told.append("e-mail")
        except (OSError, smtplib.SMTPException, AlertError) as error:
            problems.append(f"e-mail: {type(error).__name__} {error}")
    if problems:
        raise AlertError(f"alert {subject!r} not delivered: " + "; ".join(problems), tuple(told))
    return told


def _without_address(error: Exception) -> str:
    """What went wrong, without the address that messages of the standard library may repeat."""
    if isinstance(error, AlertError):
        return str(error)
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return f"{type(reason).__name__} {reason.strerror}" if isinstance(reason, OSError) and reason.strerror else type(reason).__name__


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise AlertError(f"the environment variable {name}, named under 'alerts' in store.yaml, is not set")
    return value


def _post(address: str, text: str) -> None:
    if not address.startswith(("https://", "http://")):
        raise AlertError("the webhook's address must begin with https:// or http://")
    request = urllib.request.Request(address, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
        pass


def _mail(store: Store, subject: str, text: str) -> None:
    settings = store.alerts
    message = EmailMessage()
    message["Subject"] = " ".join(f"[{store.name}] {subject}".split())
    message["From"], message["To"] = settings.mail_from, ", ".join(settings.mail_to)
    message.set_content(text)
    with smtplib.SMTP(settings.mail_host, settings.mail_port, timeout=TIMEOUT_SECONDS) as server:
        if settings.mail_password_variable:
            server.starttls(context=ssl.create_default_context())  # a password goes to the server it is meant for only
            server.login(settings.mail_from, _from_environment(settings.mail_password_variable))
        server.send_message(message)
