"""A DICOMweb service, by dicomweb-client."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import requests
from dicomweb_client.api import DICOMwebClient

from lymphcad.errors import CommandError, LymphcadError
from lymphcad_client.pacs.address import credentials

if TYPE_CHECKING:
    from lymphcad_client.pacs.address import Speech, WebPeer

# It logs UIDs.
logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL + 1)

TRANSIENT = frozenset({408, 425, 429, 502, 503, 504, 507})
"""HTTP statuses after which the same request may succeed (RFC 9110; 507: the disk is full)."""


class _Session(requests.Session):
    def merge_environment_settings(self, *arguments: Any, **named: Any) -> Any:
        """Have the authority that was named win over REQUESTS_CA_BUNDLE, which wins by itself."""
        settings = super().merge_environment_settings(*arguments, **named)
        return settings if self.verify is True else {**settings, "verify": self.verify}


def open_web(peer: WebPeer, speech: Speech) -> Any:
    """Return a client of a DICOMweb service.

    Parameters
    ----------
    peer, speech
        Which, and how.

    Returns
    -------
    dicomweb_client.api.DICOMwebClient
        It tries nothing again: what it sends a second time is empty (0.61).

    Raises
    ------
    CommandError
        If the environment's credentials are not whole.
    """
    token, user = credentials()
    session = _Session()
    session.verify = True if speech.ca is None else str(speech.ca)
    if speech.cert is not None:
        session.cert = (str(speech.cert), str(speech.key))
    if token is not None:
        session.headers["Authorization"] = f"Bearer {token}"
    elif user is not None:
        session.auth = user
    client = DICOMwebClient(peer.url, session=session, timeout=speech.timeout_s)
    client.set_http_retry_params(retry=False)
    return client


def status_of(error: requests.HTTPError) -> int:
    """Return the HTTP status of an answer; 0 if there was none."""
    return 0 if error.response is None else error.response.status_code


class NoAnswer(LymphcadError):  # noqa: N818 - whether it is an error is for the caller to say
    """The service cannot be reached."""


def check_web(client: Any, peer: WebPeer) -> None:
    """See that a service answers, by one small question.

    Parameters
    ----------
    client
        From `open_web`.
    peer
        Which service it is.

    Raises
    ------
    NoAnswer
        If it does not.
    CommandError
        If it wants other credentials, or there is no DICOMweb at the address.
    """
    try:
        client.search_for_studies(limit=1)
    except requests.HTTPError as error:
        status = status_of(error)
        if status in (400, 401, 403):  # 400: nginx to a certificate that it does not know
            raise CommandError(
                f"the PACS at {peer.url} does not let us in (HTTP {status}): set LYMPHCAD_PACS_TOKEN, or"
                " LYMPHCAD_PACS_USER and LYMPHCAD_PACS_PASSWORD, or give a certificate that it knows with --tls-cert"
            ) from None
        if status in (404, 405):
            raise CommandError(
                f"there is no DICOMweb at {peer.url} (HTTP {status}): give the address below which /studies is"
            ) from None
        if status in TRANSIENT:
            raise NoAnswer(f"the PACS at {peer.url} cannot answer now (HTTP {status}): see it") from None
    except requests.exceptions.SSLError:
        raise NoAnswer(f"the certificate of {peer.url} is not trusted: give who signed it with --tls-ca") from None
    except (requests.ConnectionError, requests.Timeout):
        raise NoAnswer(f"the PACS at {peer.url} does not answer: check its address, and that it runs") from None
    except ValueError:  # an answer that is no JSON
        raise CommandError(f"what is at {peer.url} is no DICOMweb: give the address below which /studies is") from None
