"""What a store's refusal means to the user; the servers answer as S3 does."""

import pytest
from answering import Answer, answering
from buckets import ACCESS
from s3fs import S3FileSystem

from agepipe.core.errors import StorageError
from agepipe.core.storage import asking, opened

REFUSAL = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message><RequestId>1</RequestId></Error>"


@pytest.mark.parametrize(
    ("code", "message", "named"),
    [
        ("RequestTimeTooSkewed", "The difference between the request time and the current time is too large.", "clock"),
        ("AccessDenied", "Access Denied", "credentials"),
    ],
)
def test_a_refusal_names_what_to_change(code: str, message: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ACCESS.items():
        monkeypatch.setenv(name, value)
    with answering(Answer(403, REFUSAL.format(code, message))) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        S3FileSystem.clear_instance_cache()
        fs, root = opened("workspace", "s3://bucket/team")
        with (
            pytest.raises(StorageError, match=rf"workspace: 's3://bucket/team' .*{named}"),
            asking("workspace", "s3://bucket/team"),
        ):
            fs.pipe_file(f"{root}/object", b"content")
