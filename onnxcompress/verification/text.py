"""What `verify` found, for people."""

from __future__ import annotations

from onnxcompress.verification.results import Check, Verification

HEADER = ("check", "measured", "limit", "outcome", "")
LONGEST_NOTE = 160

SIGNS = {"at least": ">=", "at most": "<=", "": ""}


def verification_table(found: Verification, *, verbose: bool = False) -> str:
    """An aligned table, a heading for each section, and a line that sums it up.

    Args:
        verbose: notes of checks that pass, too, and long ones whole.
    """
    rows: list[tuple[str, ...]] = [HEADER]
    section = ""
    for check in found.checks:
        if check.section != section:
            section = check.section
            rows.append((section,))
        note = check.note if verbose or check.outcome != "pass" else ""
        note = note if verbose or len(note) <= LONGEST_NOTE else f"{note[:LONGEST_NOTE]}..."
        rows.append((f"  {check.name}", _measured(check), _limit(check), check.outcome.replace("fail", "FAIL"), note))
    widths = [max(len(row[i]) for row in rows if len(row) > 1) for i in range(4)]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", _sum(found)])


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    if len(row) == 1:
        return row[0]
    cells = [row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2]), row[3].ljust(widths[3]), row[4]]
    return "  ".join(cells).rstrip()


def _measured(check: Check) -> str:
    value = check.measured
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _limit(check: Check) -> str:
    return "" if check.limit is None else f"{SIGNS[check.bound]} {check.limit:.4g}"


def _sum(found: Verification) -> str:
    outcomes = [check.outcome for check in found.checks]
    counts = [
        f"{outcomes.count('pass')} passed",
        f"{len(found.failures)} failed",
        f"{outcomes.count('skipped')} skipped",
    ]
    words = "verified" if found.passed else f"not verified: {found.failures[0].name}"
    feeds = f"; {found.feeds} feeds, {found.sampled} of them perturbed (seed {found.seed})" if found.feeds else ""
    return f"{words} ({', '.join(counts)}{feeds})"
