"""A real Orthanc with its DICOMweb plugin, on free ports of the loopback address, in a folder of its own."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

PLUGINS = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def need_orthanc():
    """Skip a test where Orthanc is not installed; on CI it must be."""
    if shutil.which("Orthanc") is None or not PLUGINS.exists():
        if "CI" in os.environ:
            pytest.fail("no Orthanc: apt-get install orthanc orthanc-dicomweb")
        pytest.skip("no Orthanc")


def free_port():
    """Return a port that nothing listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Orthanc:
    """An Orthanc in a folder; keeps what it stores over `stop` and `start`.

    More of its configuration can be given, e.g. ``MaximumStorageSize=1``; ``lua`` is a script; ``user`` is its only
    user, ``name:password``; with ``tls``, a folder of `certificates`, its DICOM port wants TLS. For HTTP there is
    `https_before`: Debian's Orthanc dies of its first HTTPS request (1.10.1 with OpenSSL 3).
    """

    aet = "ORTHANC"

    def __init__(self, folder, *, lua="", user=None, tls=None, **config):
        need_orthanc()
        self.folder = folder
        folder.mkdir(parents=True)
        self.http, self.dicom = free_port(), free_port()
        self.user, self.tls = user, tls
        if user is not None:
            config |= {"AuthenticationEnabled": True, "RegisteredUsers": dict([user.split(":")])}
        if tls is not None:
            config |= {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": str(tls / "orthanc.crt"),
                "DicomTlsPrivateKey": str(tls / "orthanc.key"),
                "DicomTlsTrustedCertificates": str(tls / "ca.crt"),
            }
        scripts = []
        if lua:
            (folder / "script.lua").write_text(lua)
            scripts = [str(folder / "script.lua")]
        settings = {
            "Name": "test",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "HttpPort": self.http,
            "HttpBindAddresses": ["127.0.0.1"],
            "DicomPort": self.dicom,
            "DicomAet": self.aet,
            "DicomCheckCalledAet": False,
            "DicomModalitiesInDatabase": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": [str(PLUGINS)],
            "LuaScripts": scripts,
            "DicomWeb": {"Enable": True},
            "StableAge": 1,
            **config,
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self.process is not None:
            self.process.kill()  # an orderly end takes seconds
            self.process.wait(60)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http}"

    @property
    def web(self):
        """Address of DICOMweb."""
        return f"{self.url}/dicom-web"

    @property
    def address(self):
        return f"{'dicom' if self.tls is None else 'dicom+tls'}://{self.aet}@127.0.0.1:{self.dicom}"

    def start(self):
        log = (self.folder / "log.txt").open("a")
        self.process = subprocess.Popen(["Orthanc", "orthanc.json"], cwd=self.folder, stdout=log, stderr=log)
        log.close()
        end = time.monotonic() + 60
        while time.monotonic() < end:
            assert self.process.poll() is None, (self.folder / "log.txt").read_text()[-2000:]
            with contextlib.suppress(OSError):
                self.get("/system")
                with socket.create_connection(("127.0.0.1", self.dicom)):
                    return
            time.sleep(0.05)
        raise AssertionError("Orthanc does not start")

    def stop(self):
        if self.process is not None:
            self.resume()
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def request(self, method, path, body=None):
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        if self.user is not None:
            request.add_header("Authorization", f"Basic {base64.b64encode(self.user.encode()).decode()}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def get(self, path):
        return json.loads(self.request("GET", path))

    def put(self, contents):
        """Store a file; return what Orthanc says of it."""
        return json.loads(self.request("POST", "/instances", contents))

    def instances(self):
        """Return Study, SOP Class and SOP Instance UID of all that it has, by Orthanc's own names."""
        found = {}
        for one in self.get("/instances"):
            tags = self.get(f"/instances/{one}/simplified-tags")
            found[one] = tags["StudyInstanceUID"], tags["SOPClassUID"], tags["SOPInstanceUID"]
        return found

    def file(self, instance):
        return self.request("GET", f"/instances/{instance}/file")

    def send(self, aet, port, resources):
        """Send resources to a node by C-STORE; raises `urllib.error.HTTPError` if it does not take all."""
        peer = {"AET": aet, "Host": "127.0.0.1", "Port": port}
        self.request("PUT", "/modalities/peer", peer)
        return json.loads(self.request("POST", "/modalities/peer/store", {"Resources": resources, "Synchronous": True}))


def certificates(folder):
    """Write an authority's certificate, and one with its key for Orthanc and one for us, both signed by it."""
    folder.mkdir(parents=True)

    def run(words):
        subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)

    run("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    for name in ("orthanc", "us"):
        run(f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr")
        run(f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.crt")
    return folder


_NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; client_max_body_size 0; proxy_request_buffering off; proxy_buffering off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {tls}/orthanc.crt; ssl_certificate_key {tls}/orthanc.key;
    ssl_client_certificate {tls}/ca.crt; ssl_verify_client on;
    location / {{ proxy_pass {to}; }}
  }}
}}
"""


@contextlib.contextmanager
def https_before(orthanc, folder):
    """Yield the address of DICOMweb by a real nginx with TLS, which wants a client's certificate, too."""
    if shutil.which("nginx") is None:
        if "CI" in os.environ:
            pytest.fail("no nginx: apt-get install nginx-light")
        pytest.skip("no nginx")
    folder.mkdir()
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, tls=orthanc.tls, to=orthanc.url))
    process = subprocess.Popen(["nginx", "-c", str(config), "-e", str(folder / "error.log")])
    try:
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield f"https://127.0.0.1:{port}/dicom-web"
    finally:
        process.terminate()
        process.wait(30)


__all__ = ["Orthanc", "certificates", "free_port", "https_before", "need_orthanc"]
