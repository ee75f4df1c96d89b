"""The findings of a mix's audit, for its report: ``audit.json`` as the audit wrote it, checked before it is trusted."""

from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError
from vlm_prep.report.samples import cut

AUDIT_FILE = "audit.json"
FORMAT = "vlm-mix audit"
VERSION = 1
FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "title": str,
    "severity": str,
    "status": str,
    "reason": (str, type(None)),
    "num_rows": (int, type(None)),
    "columns": list,
    "rows": list,
    "advice": (str, type(None)),
}


def read_findings(mix: Path) -> list[dict[str, Any]] | None:
    """The findings, None where no audit has been run. Raises DataError for a file that is none of ours."""
    path = mix / AUDIT_FILE
    if not path.is_file():
        return None
    try:
        audit = json_text.loads(path.read_bytes())
        if audit["format"] != FORMAT or audit["version"] > VERSION:
            raise DataError(f"{path}: expected {FORMAT!r} up to version {VERSION}; run vlm-prep audit again")
        return [_checked(finding) for finding in audit["findings"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged: {error!r}; run vlm-prep audit again") from error


def _checked(finding: dict[str, Any]) -> dict[str, Any]:
    """The fields that the page shows. Raises KeyError or TypeError."""
    for name, kind in FIELDS.items():
        if not isinstance(finding[name], kind):
            raise TypeError(f"{name} of a finding: {finding[name]!r}")
    rows = [{key: _shown(value) for key, value in zip(finding["columns"], row, strict=True)} for row in finding["rows"]]
    return {**{name: finding[name] for name in FIELDS}, "rows": rows}


def _shown(value: Any) -> Any:
    return cut(value) if isinstance(value, str) else value


def named_samples(findings: list[dict[str, Any]] | None) -> list[tuple[str, str]]:
    """(dataset, sample_id) of every example that names its sample, without repeats, in order."""
    named = [(row.get("dataset"), row.get("sample_id")) for finding in findings or () for row in finding["rows"]]
    return list(dict.fromkeys((d, s) for d, s in named if isinstance(d, str) and isinstance(s, str)))
