"""STOW-RS (PS3.18, section 10.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests
from pydicom import dcmread

from lymphcad_client.pacs.sending import Sent, TryAgain
from lymphcad_client.pacs.web import TRANSIENT, check_web, open_web, status_of

if TYPE_CHECKING:
    from lymphcad_client.pacs.address import Speech, WebPeer
    from lymphcad_client.pacs.part10 import Stored


class WebStore:
    """Stores by DICOMweb, one object a request, so that each has its own answer.

    Parameters
    ----------
    peer, speech
        With whom, and how.

    Raises
    ------
    LymphcadError
        If it does not answer, or does not let us in.
    """

    def __init__(self, peer: WebPeer, speech: Speech) -> None:
        self._client = open_web(peer, speech)
        check_web(self._client, peer)

    def close(self) -> None:
        """Do nothing: each request has its end."""

    def store(self, one: Stored) -> Sent:
        """Store an object; see `lymphcad_client.pacs.sending.Store.store`."""
        try:
            contents = dcmread(one.path)
        except (OSError, ValueError, AttributeError, NotImplementedError, EOFError):
            return Sent(one.path, "refused", "not_dicom")
        try:
            answer = self._client.store_instances([contents])
        except requests.HTTPError as error:
            status = status_of(error)
            if status in TRANSIENT:
                raise TryAgain(f"HTTP {status}") from None
            return Sent(one.path, "refused", f"HTTP {status}")
        except (requests.ConnectionError, requests.Timeout):
            raise TryAgain("unreachable") from None
        except ValueError:  # an answer that is no DICOM JSON: whether it was stored is not known
            raise TryAgain("bad_answer") from None
        failed = answer.get("FailedSOPSequence") or []
        if failed:
            return Sent(one.path, "refused", f"0x{int(failed[0].get('FailureReason', 0)):04X}")
        named = {str(item.get("ReferencedSOPInstanceUID")) for item in answer.get("ReferencedSOPSequence") or []}
        if one.sop_instance not in named:
            # Neither stored nor refused: so answers an Orthanc whose disk is full (1.10).
            raise TryAgain("not_named")
        return Sent(one.path, "stored")
