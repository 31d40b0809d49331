"""The demo merchant of the local stack, its API key and an operator's key: made once, kept in DATA_DIR (mode 0600)."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from ctrip.context import Context
from ctrip.domain.audit_log import LOCAL
from ctrip.domain.merchants import MERCHANT_SCOPES, OPERATOR_SCOPES
from ctrip.errors import Unauthorized
from ctrip.local.files import read_json, write_private_json
from ctrip.services import merchants


@dataclass(frozen=True)
class Credentials:
    """What the demo merchant's program would be told, and the operator's key."""

    merchant_id: str
    api_key: str = field(repr=False)
    admin_key: str = field(repr=False)
    webhook_secret: str = field(repr=False)


def keep_credentials(ctx: Context, path: Path) -> Credentials:
    """Return the credentials in the file; where there are none, or not for this database, make and write them."""
    kept = read_json(path)
    if kept is not None:
        credentials = Credentials(**kept)
        if _is_known(ctx, credentials):
            return credentials
    merchant_id, webhook_secret = merchants.create_merchant(ctx, by=LOCAL, name="Demo shop")
    _, api_key = merchants.create_key(ctx, by=LOCAL, merchant_id=merchant_id, scopes=MERCHANT_SCOPES)
    _, admin_key = merchants.create_key(ctx, by=LOCAL, merchant_id=None, scopes=OPERATOR_SCOPES)
    credentials = Credentials(merchant_id, api_key, admin_key, webhook_secret)
    write_private_json(path, dataclasses.asdict(credentials))
    return credentials


def _is_known(ctx: Context, credentials: Credentials) -> bool:
    try:
        for key in (credentials.api_key, credentials.admin_key):
            merchants.authenticate(ctx, key, address="127.0.0.1")
    except Unauthorized:
        return False
    return True
