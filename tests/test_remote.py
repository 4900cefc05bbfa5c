"""Options of stores by their usual names, packages that are missing, and credentials that are not shown."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskim.errors import SettingsError
from daskim.remote import Options, blot, has_folders, missing_package, open_options, refuse_credentials, secrets_of


@pytest.mark.parametrize(
    ("url", "given", "expected"),
    [
        ("s3://b/x", {"anon": True}, {"anon": True}),
        ("s3://b/x", {"endpoint_url": "http://h:1"}, {"endpoint_url": "http://h:1"}),
        ("s3://b/x", {"requester_pays": True}, {"requester_pays": True}),
        ("s3://b/x", {"region": "eu-1"}, {"client_kwargs": {"region_name": "eu-1"}}),
        ("s3://b/x", {"key": 123456}, {"key": "123456"}),
        ("gs://b/x", {"anon": True}, {"token": "anon"}),
        ("gs://b/x", {"requester_pays": "project"}, {"requester_pays": "project"}),
        ("gs://b/x", {"endpoint_url": "http://h:1"}, {"endpoint_url": "http://h:1"}),
        ("az://c/x", {"anon": True, "account_name": 12345}, {"anon": True, "account_name": "12345"}),
        ("memory://x", {"anon": True}, {"anon": True}),
        ("zip://a.zip::s3://b/z", {"s3": {"region": "eu-1"}}, {}),
    ],
)
def test_options_by_their_usual_names(url: str, given: dict, expected: dict) -> None:
    found = open_options(url, given)
    assert {name: found[name] for name in expected} == expected


def test_inner_options_of_a_chained_url() -> None:
    found = open_options("zip://a.zip::s3://b/z", {"s3": {"region": "eu-1", "anon": True}})
    assert found["s3"]["client_kwargs"] == {"region_name": "eu-1"}
    assert found["s3"]["anon"] is True


@pytest.mark.parametrize(
    ("url", "name"),
    [("az://c/x", "endpoint_url"), ("az://c/x", "requester_pays"), ("https://h/x", "anon"), ("gs://b/x", "region")],
)
def test_an_option_that_says_nothing_is_refused(url: str, name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} says nothing to"):
        open_options(url, {name: True})


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://b", "s3"), ("gs://b", "gcs"), ("abfs://b", "azure"), ("zip://a::https://h/z", "http")]
)
def test_a_missing_package_names_its_extra(url: str, extra: str) -> None:
    assert f"pip install 'daskim[{extra}]'" in (missing_package(url, ImportError("No module")) or "")
    assert missing_package(url, OSError("other")) is None


def test_options_do_not_show_their_values() -> None:
    options = Options(key="CANARY1", inner={"secret": "CANARY2"})
    assert "CANARY" not in f"{options!r} {options} {[options]!r}"
    again = pickle.loads(pickle.dumps(options))
    assert again == options
    assert isinstance(again, Options)


@given(secret=st.text(st.characters(categories=["L", "N"]), min_size=4, max_size=40), around=st.text(max_size=20))
def test_secrets_are_blotted_out(secret: str, around: str) -> None:
    if secret not in "***":
        assert secret not in blot(f"x{secret}y", secrets_of({"key": secret, "anon": True}))


def test_what_is_blotted_out_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from/the/environment")
    said = "GET https://h/a?X-Amz-Signature=abc with from/the/environment, Authorization: AWS4 abc, https://me:pw@h/"
    told = blot(said)
    assert not [word for word in ("abc", "environment", "pw@") if word in told]
    assert blot("endpoint http://h:1", secrets_of({"endpoint_url": "http://h:1"})) == "endpoint http://h:1"


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/x",
        "https://me:pw@host/x",
        "https://h/a.tar?X-Amz-Signature=1&b=2",
        "https://h/a.tar?sv=1&sig=abc",
    ],
)
def test_credentials_in_a_url_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="would end in tables and logs") as caught:
        refuse_credentials(url)
    assert not [word for word in ("secret", "pw", "abc", "Signature") if word in str(caught.value)]


def test_stores_without_folders() -> None:
    assert not has_folders(("s3", "s3a"))
    assert has_folders("memory")
    assert has_folders(("http", "https"))
