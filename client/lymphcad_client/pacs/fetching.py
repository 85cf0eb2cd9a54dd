"""Fetch a study from a PACS into a folder, each object whole and as it was sent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import requests
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from lymphcad.errors import CommandError
from lymphcad_client.pacs.dimse import association
from lymphcad_client.pacs.receiving import NotSaved, save
from lymphcad_client.pacs.storage_node import CT_CLASSES, STORAGE_CLASSES, TRANSFER_SYNTAXES, StorageNode, store_handler
from lymphcad_client.pacs.web import check_web, open_web, status_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lymphcad_client.pacs.address import DicomPeer, Speech, WebPeer

_PENDING = (0xFF00, 0xFF01)
_AS_IT_IS = (("application/dicom", "*"),)
"""The transfer syntax in which it is stored (PS3.18, section 8.7.3.5.2)."""


@dataclass
class Fetched:
    """What came.

    Attributes
    ----------
    saved, present
        Objects that were saved, and that were there already.
    missing
        Objects that the PACS has, or says that it has, and that did not come.
    refused
        What came and was not saved, by code.
    """

    saved: int = 0
    present: int = 0
    missing: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def is_whole(self) -> bool:
        """Whether all is there."""
        return not self.missing and not self.refused


@dataclass(frozen=True)
class MoveTo:
    """Where a PACS sends what C-MOVE asks for.

    Attributes
    ----------
    aet
        Our AE title, which it knows with our address and port.
    port, bind
        Where we listen.
    """

    aet: str
    port: int
    bind: str = "127.0.0.1"


def fetch_web(peer: WebPeer, study: str, folder: Path, speech: Speech, advance: Callable[[int], None]) -> Fetched:
    """Fetch a study by DICOMweb (QIDO-RS and WADO-RS, PS3.18), one series after the other.

    Parameters
    ----------
    peer, speech
        From whom, and how.
    study
        Study Instance UID.
    folder
        Where it goes.
    advance
        Called after each object with how many are left.

    Raises
    ------
    LymphcadError
        If the PACS does not answer, or has no such study.
    """
    client = open_web(peer, speech)
    check_web(client, peer)
    found = Fetched()
    try:
        wanted: dict[str, str] = {}
        for one in client.search_for_series(study_instance_uid=study, get_remaining=True):
            series = _value(one, "0020000E")
            instances = client.search_for_instances(
                study_instance_uid=study, series_instance_uid=series, get_remaining=True
            )
            wanted.update((_value(instance, "00080018"), series) for instance in instances)
        if not wanted:
            raise _no_study()
        for series in dict.fromkeys(wanted.values()):
            for data_set in client.iter_series(study, series, media_types=_AS_IT_IS):
                wanted.pop(str(data_set.get("SOPInstanceUID")), None)
                _save(data_set, folder, found)
                advance(len(wanted))
    except requests.HTTPError as error:
        status = status_of(error)
        if status == requests.codes.not_found:
            raise _no_study() from None
        raise CommandError(f"the PACS answered HTTP {status}: see it, and try again") from None
    except (requests.ConnectionError, requests.Timeout):
        raise CommandError("the PACS stopped answering: the same command goes on with what is missing") from None
    found.missing = len(wanted)
    return found


def fetch_get(peer: DicomPeer, study: str, folder: Path, speech: Speech, advance: Callable[[int], None]) -> Fetched:
    """Fetch a study by C-GET (PS3.4, section C.4.3); parameters and errors as in `fetch_web`."""
    found = Fetched()
    contexts = [(str(StudyRootQueryRetrieveInformationModelGet), [ImplicitVRLittleEndian])]
    # Each on its own, so that the PACS need not change an image's encoding to send it.
    contexts += [(str(one), [str(syntax)]) for one in CT_CLASSES for syntax in TRANSFER_SYNTAXES]
    contexts += [
        (str(one), [ExplicitVRLittleEndian, ImplicitVRLittleEndian]) for one in STORAGE_CLASSES if one not in CT_CLASSES
    ]
    roles = [build_role(one, scp_role=True) for one in STORAGE_CLASSES]
    handlers = [(evt.EVT_C_STORE, _counting(folder, found))]
    with association(peer, speech, contexts, roles=roles, handlers=handlers) as open_one:
        _suboperations(
            open_one.send_c_get(_identifier(study), StudyRootQueryRetrieveInformationModelGet), found, advance
        )
    return found


def fetch_move(
    peer: DicomPeer, study: str, folder: Path, speech: Speech, advance: Callable[[int], None], to: MoveTo
) -> Fetched:
    """Fetch a study by C-MOVE (PS3.4, section C.4.2), and receive it; parameters and errors as in `fetch_web`."""
    found = Fetched()
    contexts = [(str(StudyRootQueryRetrieveInformationModelMove), [ImplicitVRLittleEndian])]

    def stored(_association: Any, saved: Any) -> None:
        _count(found, is_new=saved.is_new)

    def refused(_association: Any, error: NotSaved) -> None:
        found.refused[error.reason] += 1

    with (
        StorageNode(to.port, to.aet, folder, stored, on_refused=refused, bind=to.bind),
        association(peer, speech, contexts) as open_one,
    ):
        answers = open_one.send_c_move(_identifier(study), to.aet, StudyRootQueryRetrieveInformationModelMove)
        _suboperations(answers, found, advance)
    return found


def _suboperations(answers: Any, found: Fetched, advance: Callable[[int], None]) -> None:
    """Read the answers of a C-GET or C-MOVE to the last one."""
    status = None
    for answer, _ in answers:
        status = answer.get("Status")
        if status in _PENDING:
            advance(int(answer.get("NumberOfRemainingSuboperations") or 0))
            continue
        failed = int(answer.get("NumberOfFailedSuboperations") or 0)
        found.missing = max(failed - found.refused.total(), 0)
        if status is not None and not found.saved + found.present + failed + found.refused.total():
            if status == 0x0000:
                raise _no_study()
            raise CommandError(
                f"the PACS did not send the study (status 0x{int(status):04X}): check the Study Instance UID, and with"
                " --method move that it knows our AE title, address and port"
            )
    if status is None:
        raise CommandError(
            "the PACS ended the association without an answer: check that it knows our AE title (--calling-aet), with"
            " --method move also our address and port; the same command goes on with what is missing"
        )


def _counting(folder: Path, found: Fetched) -> Callable[[Any], int]:
    def stored(_association: Any, saved: Any) -> None:
        _count(found, is_new=saved.is_new)

    def refused(_association: Any, error: NotSaved) -> None:
        found.refused[error.reason] += 1

    return store_handler(folder, stored, refused)


def _save(data_set: Dataset, folder: Path, found: Fetched) -> None:
    try:
        with BytesIO() as buffer:
            dcmwrite(buffer, data_set, enforce_file_format=True)
            saved = save(buffer.getvalue(), folder)
    except NotSaved as error:
        found.refused[error.reason] += 1
    except (ValueError, AttributeError, KeyError, TypeError, NotImplementedError):
        found.refused["unreadable"] += 1  # what came cannot be written as a file
    else:
        _count(found, is_new=saved.is_new)


def _count(found: Fetched, *, is_new: bool) -> None:
    if is_new:
        found.saved += 1
    else:
        found.present += 1


def _identifier(study: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = study
    return identifier


def _value(attributes: dict[str, Any], tag: str) -> str:
    return str(attributes[tag]["Value"][0])


def _no_study() -> CommandError:
    return CommandError("the PACS has no study with this Study Instance UID: check it")
