"""deploy/orthanc/orthanc.json, by a real Orthanc."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.request

from deploying import DEPLOY
from orthanc import PLUGINS, free_port, need_orthanc

PLACES = {"StorageDirectory", "IndexDirectory", "TemporaryDirectory", "Plugins", "HttpPort", "DicomPort"}


def status(port, path, user=None, data=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data)
    if user is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_who_has_no_password_gets_nothing(tmp_path):
    need_orthanc()
    settings = json.loads((DEPLOY / "orthanc" / "orthanc.json").read_text())
    assert settings.keys() >= PLACES
    web, dicom = free_port(), free_port()
    folder = str(tmp_path)
    settings |= {name: folder for name in PLACES if name.endswith("Directory")}
    settings |= {"Plugins": [str(PLUGINS)], "HttpPort": web, "DicomPort": dicom}
    settings["HttpBindAddresses"] = ["127.0.0.1"]  # on this machine
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    environment = os.environ | {"ORTHANC_USER": "someone", "ORTHANC_PASSWORD": "pass-word"}
    with subprocess.Popen(
        ["Orthanc", str(tmp_path / "orthanc.json")],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    ) as process:
        try:
            while True:
                assert process.poll() is None
                with contextlib.suppress(urllib.error.URLError):
                    first = status(web, "/system")
                    break
                time.sleep(0.05)
            assert first == 401
            assert status(web, "/system", "someone:wrong") == 401
            assert status(web, "/dicom-web/studies") == 401
            assert status(web, "/system", "someone:pass-word") == 200
            assert status(web, "/dicom-web/studies", "someone:pass-word") == 200
            assert status(web, "/tools/execute-script", "someone:pass-word", b"print(1)") == 403
        finally:
            process.terminate()
