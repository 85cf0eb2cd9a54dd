"""Who may open the page: against a real provider (OpenID Connect), in a browser."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from pages import browser, started, wait_for

pytest.importorskip("streamlit")
from lymphcad_dashboard.access import is_loopback

EDGE = ("--runner", "onnxruntime")
PAGE = """
import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from lymphcad_dashboard.access import require_sign_in, sign_out_button
from lymphcad_dashboard.settings import Settings

settings = Settings.from_environment()
st.write("session", get_script_run_ctx().session_id)
require_sign_in(settings)
st.title("Inside")
sign_out_button(settings)
files = st.file_uploader("Study", accept_multiple_files=True)
st.write("bytes:", sum(len(file.getvalue()) for file in files))
"""
AUTH = {
    "redirect_uri": "http://localhost:8501/oauth2callback",
    "cookie_secret": "0123456789abcdef" * 2,
    "client_id": "lymphcad",
    "client_secret": "made for the test",
    "server_metadata_url": "http://127.0.0.1:1/.well-known/openid-configuration",
}


@pytest.fixture
def page(tmp_path):
    file = tmp_path / "page.py"
    file.write_text(PAGE)
    return file


def write_secrets(home, auth):
    (home / ".streamlit").mkdir(exist_ok=True)
    lines = [f'{name} = "{value}"' for name, value in auth.items()]
    (home / ".streamlit" / "secrets.toml").write_text("\n".join(["[auth]", *lines]) + "\n")


@pytest.fixture
def provider():
    """Return the address of a provider that signs in who asks."""
    pytest.importorskip("oidc_provider_mock")
    from lymphcad_serve.server import free_ports

    port = free_ports().grpc
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://localhost:{port}"

    def answers():
        try:
            return urllib.request.urlopen(f"{address}/.well-known/openid-configuration").status == 200
        except urllib.error.URLError:
            return False

    try:
        wait_for(answers)
        yield address
    finally:
        process.kill()
        process.wait()


def test_loopback():
    for host in ("127.0.0.1", "127.8.0.1", "::1", "localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "fe80::1", "localhost.example", "", "127.0.0.1.example", "example"):
        assert not is_loopback(host)


def test_only_who_has_signed_in_sees_the_page(page, tmp_path, provider):
    from lymphcad_serve.server import free_ports

    port = free_ports().grpc
    url = f"http://localhost:{port}"
    metadata = f"{provider}/.well-known/openid-configuration"
    write_secrets(tmp_path, AUTH | {"redirect_uri": f"{url}/oauth2callback", "server_metadata_url": metadata})
    # On all addresses: with a sign-in it may.
    with started(page, tmp_path, *EDGE, "--host", "0.0.0.0", port=port) as dashboard, browser() as seen:
        assert dashboard.url == url
        seen.goto(url)
        seen.get_by_role("button", name="Sign in").wait_for()
        assert seen.get_by_text("Research use only; not a medical device.").is_visible()
        assert not seen.get_by_text("Inside").count()
        assert not seen.locator("input[type=file]").count()
        # Nor may who has not signed in fill the memory.
        assert put(seen, session_of(seen)) == 403

        seen.get_by_role("button", name="Sign in").click()
        seen.locator("input[name=sub]").fill("reader@hospital.example")
        seen.get_by_role("button", name="Authorize", exact=True).click()
        seen.get_by_text("Inside").wait_for()
        assert seen.url.startswith(url)
        seen.locator("input[type=file]").set_input_files({"name": "a", "mimeType": "a/b", "buffer": b"x" * 9})
        seen.get_by_text("bytes: 9").wait_for()
        assert put(seen, session_of(seen)) == 204
        assert put(seen, "another") == 403
        # The same cookie on another name of this machine, which the provider does not know, opens nothing.
        seen.context.add_cookies([cookie | {"domain": "127.0.0.1"} for cookie in seen.context.cookies()])
        other = seen.context.new_page()
        other.goto(f"http://127.0.0.1:{port}")
        other.get_by_role("button", name="Sign in").wait_for()
        assert not other.get_by_text("Inside").count()
        other.close()

        seen.get_by_role("button", name="Sign out").click()
        seen.wait_for_url(f"{provider}/oauth2/end_session?**")
        seen.get_by_role("button", name="End session").click()
        seen.get_by_role("button", name="Sign in").wait_for()
        assert not seen.get_by_text("Inside").count()
        assert dashboard.stop(signal.SIGTERM) == 0
    assert "reader" not in dashboard.said
    assert "Traceback" not in dashboard.said


def session_of(seen):
    return seen.get_by_text("session ").inner_text().split()[-1]


def put(seen, session):
    """Upload a file as the page would, and return the status of the answer."""
    return seen.evaluate(
        """async (session) => {
            const body = new FormData();
            body.append("file", new Blob(["x"]), "b");
            const found = document.cookie.match(/_streamlit_xsrf=([^;]*)/);
            const headers = {"X-Xsrftoken": found[1]};
            return (await fetch(`/_stcore/upload_file/${session}/1`, {method: "PUT", body, headers})).status;
        }""",
        session,
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"client_secret": ""}, "lacks client_secret: add it"),
        ({"cookie_secret": "short"}, "cookie_secret in the section [auth]"),
        ({"redirect_uri": "http://localhost:8501/"}, "followed by /oauth2callback was expected"),
        ({"redirect_uri": "localhost:8501/oauth2callback"}, "followed by /oauth2callback was expected"),
        ({"client_id": '" = '}, "cannot be read: write them as TOML"),
        ({}, "--insecure lets everybody in, and Streamlit's secrets have them sign in"),
    ],
)
def test_a_sign_in_that_cannot_work_is_said_at_the_start(page, tmp_path, change, words):
    write_secrets(tmp_path, AUTH | change)
    options = () if change else ("--insecure",)
    with pytest.raises(AssertionError) as ended, started(page, tmp_path, *EDGE, *options):
        pass
    said = str(ended.value.args[0])
    assert said.startswith("lymphcad: ")
    assert words in said
    assert said.count("\n") == 1
    assert "short" not in said.replace("is shorter", "")
