"""A report as a table."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

HEADINGS = ("", "engine", "computed", "blocks", "speed-up", "ideal")
HEADINGS += ("PSNR", "10th pct.", "SSIM", "FLIP", "fulfilled")


def table(report: dict[str, Any]) -> Table:
    """One line for each setting and engine.

    The ideal speed-up of a config that decides at run time is the most that it can give.
    """
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for i, heading in enumerate(HEADINGS):
        result.add_column(heading, justify="left" if i < 2 else "right", no_wrap=True)
    setting = None
    for row in report["rows"]:
        again = row["setting"] == setting
        setting = row["setting"]
        result.add_row(
            "" if again else setting,
            row["engine"],
            _computed(row),
            f"{row['block_share']:.0%}",
            f"{row['speed_up']:.2f}x",
            f"{row['ideal_speed_up']:.2f}x",
            "identical" if row["psnr_mean"] is None else f"{row['psnr_mean']:.1f}",
            "" if row["psnr_p10"] is None else f"{row['psnr_p10']:.1f}",
            f"{row['ssim_mean']:.4f}",
            f"{row['flip_mean']:.4f}",
            f"{row['fulfilled']:.0%}",
        )
    return result


def _computed(row: dict[str, Any]) -> str:
    least, most = row["computed_min"], row["computed_max"]
    return f"{least}" if least == most else f"{row['computed_mean']:.1f} ({least}-{most})"
