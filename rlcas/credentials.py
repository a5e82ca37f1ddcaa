"""Passwords and keys inside addresses, which must not be in any setting, message or file of a run's folder.

s3://KEY:SECRET@bucket, http://user:password@host, https://TOKEN@host, az://c/x?sig=SIGNATURE
"""

from __future__ import annotations

import re

HIDDEN = "***"
WHERE_THEY_BELONG = (
    "leave it out, and set it in the environment or "
    "the store's own file (AWS_ACCESS_KEY_ID, ~/.aws/credentials)"
)
_USER_INFO = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)"
    r"(?:[^/\s@:\['\"<>]*:(?!\d{1,5}(?:[/\s'\"]|$))[^\s'\"<>]*@"  # user:password@, but no host:port/
    r"|(?<=http://)[^/\s@'\"<>]+@|(?<=https://)[^/\s@'\"<>]+@)"  # a token alone
)
_QUERY = re.compile(
    r"(?P<name>[?&;][^=&\s?'\"<>]*(?:secret|passw|token|signature|credential|access_?key|api_?key)[^=&\s'\"<>]*="
    r"|[?&;]sig=)[^&;\s'\"<>]+",
    re.IGNORECASE,
)


def without_credentials(text: str) -> str:
    """Return `text` with `***` for user name and password before the @, and for the secrets in a query."""
    # Most texts have no address, and the patterns need one.
    if "://" not in text:
        return text
    return _QUERY.sub(rf"\g<name>{HIDDEN}", _USER_INFO.sub(rf"\g<scheme>{HIDDEN}@", text))


def has_credentials(text: str) -> bool:
    """Return whether an address in `text` has a password or key in it."""
    return without_credentials(text) != text
