"""Who may open the page: everybody on this machine, or who has signed in (OpenID Connect, by Streamlit)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.errors import CommandError
from lymphcad_dashboard.sessions import let_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lymphcad_dashboard.settings import Settings

_NEEDED = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
_CALLBACK = "/oauth2callback"
_SECRET_LENGTH = 32


@dataclass(frozen=True)
class SignIn:
    """How people sign in.

    Attributes
    ----------
    origin
        By which their browsers know the page: ``scheme://host``, and the port if it is not the scheme's own.
    host
        Of `origin`, without the port.
    """

    origin: str
    host: str


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address; of a name other than ``localhost`` it is not known: False."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def configured_sign_in() -> SignIn | None:
    """Return how people sign in; None if Streamlit's secrets have no section ``[auth]``.

    Raises
    ------
    CommandError
        If the secrets cannot be read, or the section is incomplete.
    """
    files = [file for file in st.get_option("secrets.files") if Path(file).exists()]
    if not files:
        return None
    try:
        auth: Mapping[str, Any] | None = st.secrets.get("auth")
    except (OSError, UnicodeDecodeError, StreamlitSecretNotFoundError):
        raise CommandError(
            f"the secrets in {' and '.join(files)} cannot be read: write them as TOML that this user may read"
        ) from None
    if auth is None:
        return None
    where = f"the section [auth] in {' and '.join(files)}"
    missing = [name for name in _NEEDED if not auth.get(name)]
    if missing:
        raise CommandError(f"{where} lacks {', '.join(missing)}: add it as docs/dashboard.md shows")
    if len(auth["cookie_secret"]) < _SECRET_LENGTH:
        raise CommandError(
            f"cookie_secret in {where} is shorter than {_SECRET_LENGTH} characters, so that a sign-in could be forged:"
            ' make one with `python -c "import secrets; print(secrets.token_hex(32))"`'
        )
    address = urlsplit(auth["redirect_uri"])
    if not address.hostname or not address.path.endswith(_CALLBACK):
        raise CommandError(
            f"redirect_uri in {where} is '{auth['redirect_uri']}', and the page's address followed by {_CALLBACK} was"
            " expected: write it so, there and at the provider"
        )
    return SignIn(f"{address.scheme}://{address.netloc}", address.hostname)


def require_sign_in(settings: Settings) -> None:
    """Let who has signed in go on, and show everybody else nothing but where to do it; the page calls it first.

    Raises
    ------
    StopException
        Streamlit's, which ends the run of the page.
    """
    if not settings.sign_in or st.user.get("is_logged_in", False):
        let_in()
        return
    st.title("LymphCAD")
    st.caption(f"{RESEARCH_USE_ONLY}.")
    st.button("Sign in", on_click=st.login, type="primary")
    st.stop()


def signed_in(settings: Settings) -> str:
    """Return who has signed in, as the provider names them; empty where nobody signs in."""
    return str(st.user.get("email") or st.user.get("sub") or "") if settings.sign_in else ""


def sign_out_button(settings: Settings) -> None:
    """Show a button that signs out, where one signs in."""
    if settings.sign_in:
        st.button("Sign out", on_click=st.logout)
