"""What follows a build, where the mix is small enough: its audit and its report. The mix is whole before it begins."""

from pathlib import Path

from vlm_catalogs.config.audit_section import AuditSection
from vlm_catalogs.console import fact, note
from vlm_catalogs.errors import UserError
from vlm_catalogs.manifest import AUDIT_FILE, REPORT_FILE, read_manifest
from vlm_catalogs.mix_place import bring_version, copies_of
from vlm_catalogs.object_copies import ObjectCopies

SMALL_MIX = 100_000
"""A mix of more samples is audited only when asked: a build after a change of its weights is to take seconds."""


def audit_and_report(version: Path, section: AuditSection, *, copies: ObjectCopies | None = None) -> None:
    """Write ``audit.json`` and ``report.html`` of a mix version, or say why not.

    What the user could mend is no error here: the mix is built and may be used.
    """
    if section.at_build == "never":
        return
    copies = copies or copies_of(None)
    place = copies.shown(version)
    num_samples = sum(one.num_converted + one.num_rejected for one in read_manifest(version).datasets)
    if section.at_build == "auto" and num_samples > SMALL_MIX:
        again = f"vlm-prep audit {place} and vlm-prep report {place}"
        note(f"{num_samples:,} samples: not audited now ([mix.audit] at_build); {again} take a while")
        return
    from vlm_prep.audit import is_audited, run_audit, write_audit
    from vlm_prep.audit.shown import broken_text, summary
    from vlm_prep.report import has_report, write_report

    try:
        bring_version(version, copies)
        if is_audited(version, section) and has_report(version, copies=copies):
            fact(f"audit and report: as before, {place}/{AUDIT_FILE} and {place}/{REPORT_FILE}")
            return
        audit = run_audit(place, section=section, copies=copies)
        for text in broken_text(audit):
            note(text)
        fact(summary(audit))
        write_audit(audit, copies=copies)
        report = write_report(place, copies=copies)
        fact(f"report: {copies.shown(report)}")
    except UserError as error:
        note(f"the mix is built, but not its audit and report: {error}")
