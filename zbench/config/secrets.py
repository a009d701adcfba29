"""Which names say that their value is a secret, which no record may hold: a record has every word that was typed."""

import re

SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|[_-]KEY$|^KEY$|APIKEY)", re.IGNORECASE)
"""Names of variables and flags."""
