"""Audiences as customer-match files for Google Ads and Meta: normalised, hashed, consented people outside holdouts only.

What belongs here: who may be in a file, and how the platforms want addresses and numbers written before hashing. What does
not: who belongs to an audience (profiles).

Google Ads: columns Email and Phone; addresses trimmed and lower-cased, dots before gmail.com and googlemail.com taken out;
numbers in E.164 with the plus. Meta: columns email, phone and country; numbers as digits with country code, countries as
two lower-case letters. Every value is SHA-256 in lower-case hexadecimal.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import date

import polars as pl

from marketing_assets.config import UNKNOWN_USER
from marketing_assets.exports.files import ExportFile, csv_bytes
from marketing_assets.warehouse import Reader

_EMAIL = re.compile(r"[^@\s,;\"'<>]+@[^@\s,;\"'<>]+\.[^@\s,;\"'<>.]+")
_UNSAFE_NAME = re.compile(r"[^\w.-]+")
_GOOGLE_MAIL = ("gmail.com", "googlemail.com")


def normal_email(text: str | None) -> str | None:
    """Without blanks, lower case; None where it is no address."""
    if text is None:
        return None
    email = re.sub(r"\s+", "", text).lower()
    return email if _EMAIL.fullmatch(email) else None


def google_email(email: str) -> str:
    """As Google Ads wants it: no dots in the name of a Google Mail address."""
    name, _, domain = email.rpartition("@")
    return f"{name.replace('.', '')}@{domain}" if domain in _GOOGLE_MAIL else email


def normal_country(text: str | None) -> str | None:
    """ISO 3166 two letters, upper case; None for anything else."""
    code = (text or "").strip().upper()
    return code if re.fullmatch(r"[A-Z]{2}", code) else None


def e164(phone: str | None, country: str | None) -> str | None:
    """+ and digits (ITU E.164). A number without its country code is read as one of `country`; None where it is not valid."""
    if not phone or not phone.strip():
        return None
    import phonenumbers

    try:
        number = phonenumbers.parse(phone.strip(), normal_country(country))
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def hashed(text: str | None) -> str:
    """SHA-256 in lower-case hexadecimal; '' for nothing."""
    return "" if text is None else hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Matched:
    """Files of every audience, and how many people were left out and why."""

    files: list[ExportFile]
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)


def addressable(reader: Reader, day: date) -> pl.DataFrame:
    """user_id, email, phone, country of people whose newest word is consent and who did not ask to be forgotten."""
    contacts = reader.accepted("contacts", None, day)
    consented = contacts.filter(pl.col("has_marketing_consent").fill_null(False), pl.col("user_id") != UNKNOWN_USER)
    forgotten = reader.accepted("erasures", None, day)["user_id"].unique()
    return (
        consented.filter(~pl.col("user_id").is_in(forgotten.implode()))
        .select("user_id", "email", "phone", "country")
        .sort("user_id")
    )


def plan_audiences(reader: Reader, day: date) -> pl.DataFrame:
    """user_id, audience_id, is_holdout: everyone's plan audience, the first by priority, in force at the end of `day`."""
    log = reader.log_as_of("audiences", day, ["user_id", "audience_id", "priority", "is_holdout"])
    members = log.filter(pl.col("audience_id").is_not_null(), pl.col("user_id") != UNKNOWN_USER)
    first = members.sort("user_id", "priority", "audience_id").unique("user_id", keep="first", maintain_order=True)
    return first.select("user_id", "audience_id", "is_holdout")


def audience_files(people: pl.DataFrame, contacts: pl.DataFrame) -> Matched:
    """A Google Ads and a Meta file per audience. Rows are sorted by hash, so that their order says nothing of anyone.

    people: as from `plan_audiences`. contacts: as from `addressable`.
    """
    known = people.filter(~pl.col("is_holdout")).join(contacts, on="user_id", how="left", coalesce=True, maintain_order="left")
    consent = set(contacts["user_id"])
    files: list[ExportFile] = []
    left_out: dict[str, dict[str, int]] = {}
    taken: dict[str, str] = {}
    for audience_id in sorted(people["audience_id"].unique()):
        everyone = people.filter(pl.col("audience_id") == audience_id)
        rows = known.filter(pl.col("audience_id") == audience_id)
        google, meta = set(), set()
        reasons = {"held_out": int(everyone["is_holdout"].sum()), "no_consent": 0, "no_usable_contact": 0}
        for row in rows.to_dicts():
            if row["user_id"] not in consent:
                reasons["no_consent"] += 1
                continue
            email, phone = normal_email(row["email"]), e164(row["phone"], row["country"])
            if email is None and phone is None:
                reasons["no_usable_contact"] += 1
                continue
            country = normal_country(row["country"])
            google.add((hashed(google_email(email) if email else None), hashed(phone)))
            meta.add(
                (hashed(email), hashed(phone.removeprefix("+") if phone else None), hashed(country.lower() if country else None))
            )
        name = file_name(audience_id, taken)
        files.append(ExportFile(f"audiences/google_ads/{name}.csv", csv_bytes(("Email", "Phone"), sorted(google)), len(google)))
        files.append(ExportFile(f"audiences/meta/{name}.csv", csv_bytes(("email", "phone", "country"), sorted(meta)), len(meta)))
        left_out[audience_id] = reasons
    return Matched(files, left_out)


def file_name(audience_id: str, taken: dict[str, str]) -> str:
    """A name that is safe on every file system and belongs to one audience only; `taken` remembers."""
    name = _UNSAFE_NAME.sub("_", audience_id).strip(".") or "audience"
    if taken.setdefault(name.lower(), audience_id) != audience_id:
        name = f"{name}-{hashlib.sha256(audience_id.encode()).hexdigest()[:8]}"
        taken[name.lower()] = audience_id
    return name
