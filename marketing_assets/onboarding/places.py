"""Countries, their clocks and currencies, as far as one country has one clock.

What belongs here: the table and guesses from it. What does not: what a store does with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_COUNTRIES = """
GB united_kingdom,uk,great_britain,england Europe/London GBP
IE ireland,eire Europe/Dublin EUR
DE germany,deutschland Europe/Berlin EUR
FR france Europe/Paris EUR
NL netherlands,the_netherlands,nederland Europe/Amsterdam EUR
BE belgium Europe/Brussels EUR
AT austria,osterreich Europe/Vienna EUR
IT italy,italia Europe/Rome EUR
ES spain,espana Europe/Madrid EUR
PT portugal Europe/Lisbon EUR
FI finland,suomi Europe/Helsinki EUR
GR greece Europe/Athens EUR
CH switzerland,schweiz,suisse Europe/Zurich CHF
SE sweden,sverige Europe/Stockholm SEK
NO norway,norge Europe/Oslo NOK
DK denmark,danmark Europe/Copenhagen DKK
PL poland,polska Europe/Warsaw PLN
CZ czech_republic,czechia Europe/Prague CZK
HU hungary Europe/Budapest HUF
RO romania Europe/Bucharest RON
TR turkey,turkiye Europe/Istanbul TRY
JP japan Asia/Tokyo JPY
CN china Asia/Shanghai CNY
HK hong_kong Asia/Hong_Kong HKD
TW taiwan Asia/Taipei TWD
KR south_korea,korea,republic_of_korea Asia/Seoul KRW
SG singapore Asia/Singapore SGD
IN india Asia/Kolkata INR
TH thailand Asia/Bangkok THB
VN vietnam,viet_nam Asia/Ho_Chi_Minh VND
PH philippines Asia/Manila PHP
AE united_arab_emirates,uae Asia/Dubai AED
SA saudi_arabia Asia/Riyadh SAR
IL israel Asia/Jerusalem ILS
ZA south_africa Africa/Johannesburg ZAR
NG nigeria Africa/Lagos NGN
EG egypt Africa/Cairo EGP
KE kenya Africa/Nairobi KES
NZ new_zealand Pacific/Auckland NZD
CO colombia America/Bogota COP
PE peru America/Lima PEN
AR argentina America/Argentina/Buenos_Aires ARS
US united_states,usa,united_states_of_america,us - USD
CA canada - CAD
AU australia - AUD
BR brazil,brasil - BRL
MX mexico - MXN
RU russia,russian_federation - RUB
ID indonesia - IDR
"""
_SHARE = 0.6
"""So much of the rows must name one country before it is taken for the shop's."""


@dataclass(frozen=True)
class Place:
    """A country: its ISO code, its clock (None where it has several) and its currency."""

    code: str
    timezone: str | None
    currency: str


def place_of(values: Sequence[str], shares: Sequence[float]) -> Place | None:
    """The country most rows name; None where no country stands out or the name is unknown."""
    from marketing_assets.onboarding.names import plain

    if not values or shares[0] < _SHARE:
        return None
    wanted = plain(values[0])
    for line in _COUNTRIES.strip().splitlines():
        code, called, zone, currency = line.split()
        if wanted == code.lower() or wanted in called.split(","):
            return Place(code, None if zone == "-" else zone, currency)
    return None


CURRENCIES = frozenset(line.split()[-1] for line in _COUNTRIES.strip().splitlines()) | {"RSD", "BGN", "UAH", "CLP", "MYR", "PKR"}
