"""chains.yaml -> Chain rows. An invalid file never falls back to anything: the process refuses to start."""

from collections.abc import Hashable
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ctrip.domain.addresses import NATIVE
from ctrip.domain.chains import Chain, SweepRules, Token
from ctrip.errors import MisconfiguredError
from ctrip.settings.rows import ChainRow, ChainsRow, base_units, sentence_for

_GWEI = 10**9
_MAX_FILE_BYTES = 4 * 2**20
_MAX_FAULTS = 20
_DEV_TREASURY = "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720"
"""The last of the ten accounts that anvil unlocks (public test mnemonic)."""


class _Loader(yaml.SafeLoader):
    """Refuses what YAML 1.1 takes silently: of a key that stands twice, the first value would be gone."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 (the base class's signature)
        """Build a mapping whose keys differ."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def read_chains(path: Path) -> tuple[Chain, ...]:
    """Read a chains file. Raises MisconfiguredError that names the file, each faulty key, and what would be right."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise MisconfiguredError(f"CHAINS_FILE: {path} is larger than {_MAX_FILE_BYTES} bytes")
        content = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506 (_Loader is a SafeLoader)
        return tuple(_chain(row) for row in ChainsRow.model_validate(content).chains)
    except OSError as error:
        raise MisconfiguredError(f"CHAINS_FILE: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MisconfiguredError(f"CHAINS_FILE: {path} is no text in UTF-8") from error
    except yaml.YAMLError as error:
        raise MisconfiguredError(f"CHAINS_FILE: {path} is no YAML: {_place(error)}") from None
    except ValidationError as error:
        faults = [_fault(details, content) for details in error.errors(include_url=False)]
        more = f"\n      and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        listed = "".join(f"\n      {fault}" for fault in faults[:_MAX_FAULTS])
        raise MisconfiguredError(f"CHAINS_FILE: {path}:{listed}{more}") from None


def dev_chain() -> Chain:
    """Return the chain that stands in where no chains file exists, in development: a local anvil."""
    return _chain(
        ChainRow.model_validate(
            {
                "name": "anvil",
                "chain_id": 31337,
                "rpc_url": "http://127.0.0.1:8545",
                "native": {"symbol": "ETH", "decimals": 18, "rates": {"static": "ETH"}},
                "confirmations": 3,
                "treasury": _DEV_TREASURY,
                "sweep": {"max_fee_gwei": 200},
            }
        )
    )


def _place(error: yaml.YAMLError) -> str:
    # The error's own text quotes the line, where a provider's key may stand.
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"
    return "it holds characters that YAML does not allow"


def _fault(details: ErrorDetails, content: Any) -> str:
    """Say of one fault where it is, what is wrong and what would be right."""
    where = _path(details["loc"], content)
    right = next((sentence_for(part) for part in reversed(details["loc"]) if isinstance(part, str)), None)
    match details["type"]:
        case "missing":
            wrong = "is missing"
        case "extra_forbidden":
            return f"{where} is no known key"
        case "string_pattern_mismatch":
            wrong = "is of the wrong form"
        case "model_type":
            wrong = "is no mapping of keys to values"
        case _:
            wrong = details["msg"].removeprefix("Value error, ").replace("Input should", "should")
    hint = f"; it is {right}" if right else ""
    return f"{where} {wrong}{hint}"


def _path(parts: tuple[int | str, ...], content: Any) -> str:
    """Write a place such as chains[0] (anvil).treasury."""
    text, at = "", content
    for part in parts:
        at = _within(at, part)
        if isinstance(part, str):
            text += f".{part}" if text else part
        else:
            name = (at.get("name") or at.get("symbol")) if isinstance(at, dict) else None
            text += f"[{part}]" + (f" ({name})" if isinstance(name, str) else "")
    return text or "the file"


def _within(content: Any, part: int | str) -> Any:
    if isinstance(content, dict):
        return content.get(part)
    return content[part] if isinstance(content, list) and isinstance(part, int) else None


def _chain(row: ChainRow) -> Chain:
    native = Token(
        symbol=row.native.symbol,
        address=NATIVE,
        decimals=row.native.decimals,
        threshold=base_units(row.sweep.threshold, row.native.decimals),
        tiers=row.tiers_of(row.native),
        rate_names=row.native.rates.names,
    )
    listed = (
        Token(
            symbol=token.symbol,
            address=token.address,
            decimals=token.decimals,
            enabled=token.enabled,
            threshold=base_units(token.threshold, token.decimals),
            fee_on_transfer=token.fee_on_transfer,
            rebasing=token.rebasing,
            tiers=row.tiers_of(token),
            rate_names=token.rates.names,
        )
        for token in row.tokens
    )
    return Chain(
        name=row.name,
        chain_id=row.chain_id,
        enabled=row.enabled,
        rpc_urls=tuple(row.rpc_urls or [row.rpc_url or ""]),
        ws_urls=tuple(row.ws_urls),
        confirmations=row.confirmations,
        reorg_window=row.reorg_window,
        poll=timedelta(seconds=row.poll_seconds),
        treasury=row.treasury,
        sweep=SweepRules(
            max_fee=int(row.sweep.max_fee_gwei * _GWEI), bump_after=timedelta(seconds=row.sweep.bump_after_seconds)
        ),
        tokens=(native, *listed),
        finality=row.finality,
        native_logs_from=row.native_logs_from,
    )
