"""The server: on this machine alone, nothing without the secret, nothing but the page and its voxels."""

import http.client
from threading import Thread

import numpy as np
import pytest
from corner_phantom import corner_phantom, lps_volume

from cdm4mi.errors import UserError
from cdm4mi.viewer import make_scene, serving


@pytest.fixture(scope="module")
def server():
    with serving(make_scene(lps_volume(corner_phantom()))) as running:
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def get(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def test_the_page_and_its_voxels(server):
    status, headers, body = get(server, f"/{server.secret}/")
    assert (status, headers["Cache-Control"], headers["Referrer-Policy"]) == (200, "no-store", "no-referrer")
    assert b"NOT FOR CLINICAL USE" in body and b"data-block" not in body.split(b"<script>")[0]
    status, _, body = get(server, f"/{server.secret}/0-0")
    assert status == 200
    assert np.array_equal(np.frombuffer(body, "<u2").reshape(6, 20, 24), corner_phantom() - 40 + 1)


def test_nothing_else(server):
    secret = server.secret
    for path in (
        "/",
        "/0-0",
        "/wrong/0-0",
        "/wrong/",
        f"/{secret}",
        f"/{secret}/1-0",
        f"/{secret}/0-0/x",
    ):
        assert get(server, path)[0] == 404, path
    for path in ("/../etc/passwd", f"/{secret}/../../etc/passwd", f"/{secret}/%2e%2e", f"/{secret}/page.html"):
        assert get(server, path)[0] == 404, path
    assert get(server, f"/{server.secret}/", "POST")[0] == 501
    assert server.secret.encode() not in get(server, "/")[2]


def test_another_name_for_this_machine_is_refused(server):
    assert get(server, f"/{server.secret}/", Host="evil.example")[0] == 404
    assert get(server, f"/{server.secret}/", Host="localhost:9999")[0] == 200  # through a tunnel


def test_it_listens_on_the_loopback_alone_and_each_time_with_another_secret(server):
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.secret) >= 32
    with serving(make_scene(lps_volume(corner_phantom()))) as other:
        assert other.secret != server.secret and other.server_port != server.server_port


def test_a_port_in_use_is_one_line(server):
    with (
        pytest.raises(UserError, match="expected a port that is free"),
        serving(make_scene(lps_volume(corner_phantom())), server.server_port),
    ):
        pass
