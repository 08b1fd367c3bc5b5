"""Results as tables, plots and claims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.bench.headline.rows import Agreement, Result
from tests.bench.headline.settings import CLAIMED, WHOLE, Engine, Row, Setting, ideal_speed_up, row
from tests.bench.report import Claim, Figure, Findings, Plot, Series, Table

_METHOD = """\
The demo model draws {prompts} prompts, uncached, with every cache config by ditplan and by \
cache-dit, and uncached with fewer steps, which is what a cache has to beat. Speed-ups are medians \
over prompts of ratios of processor time, from prompt to picture, to plain diffusers in the same \
process; each engine has a process with one thread, two draw at a time, rows in shuffled order. \
Distances are to the uncached picture, of \
those that differ from it; FLIP is NVIDIA's, 0 is best. Learned distances such as LPIPS need \
weights to download and are left out. A prompt is fulfilled if background, colour, shape, size and \
place are as it says. *Claimed* is what SGLang Diffusion documents for the preset or, for whole \
configs, at best; *at most* is what the fewest steps that the plan allows would give by floating \
point operations, *ideal* what the computed ones do; *of ideal* is what encoders, VAE, scheduler \
and engine leave of that."""

_HEADINGS = (
    *("", "computed", "claimed", "at most", "ideal", "speed-up", "of ideal", "cache-dit"),
    *("PSNR", "10th pct.", "cache-dit", "SSIM", "FLIP", "fulfilled"),
)

_EXAMPLE = "cache.yaml"

Results = dict[Row, Result]


def findings(results: Results, agreement: Agreement, prompts: int) -> Findings:
    return Findings(
        "Quality and speed",
        _METHOD.format(prompts=prompts),
        tuple(_table(of, results, agreement) for of in WHOLE),
        tuple(_plot(of, results) for of in WHOLE),
        tuple(_claims(results, agreement)),
    )


def _settings(of: int, results: Results) -> list[Setting]:
    return list(dict.fromkeys(each.setting for each in results if each.setting.of == of))


def own(setting: Setting, results: Results) -> Result:
    """What ditplan drew, where it did."""
    ours = row(Engine.DITPLAN, setting)
    return results[ours if ours in results else row(Engine.DIFFUSERS, setting)]


def _table(of: int, results: Results, agreement: Agreement) -> Table:
    found = _settings(of, results)
    note = (
        "Both engines computed the same steps in "
        f"{agreement.same_steps} of {agreement.pictures} pictures that both drew at either number "
        f"of steps, and drew the same pixels in {agreement.same_pixels}."
        if agreement.pictures
        else "cache-dit is not installed: left out."
    )
    lines = tuple(
        _line(own(each, results), results.get(row(Engine.CACHE_DIT, each))) for each in found
    )
    return Table(f"{of} steps", _HEADINGS, lines, note)


def _line(ours: Result, theirs: Result | None) -> tuple[Figure | str, ...]:
    setting, quality = ours.row.setting, ours.quality
    ideals = [ideal_speed_up(setting, computed) for computed in ours.computed]
    return (
        setting.title if setting.name or setting.config else f"{setting.title}, {setting.of} steps",
        _steps(ours.computed),
        f"{setting.claimed:.3g}x" if setting.claimed else "",
        f"{ideal_speed_up(setting):.2f}x",
        f"{sum(ideals) / len(ideals):.2f}x",
        ours.speed_up,
        Figure(ours.of_ideal.value, ".0%"),
        Figure(theirs.speed_up.value, ".2f", "x") if theirs else "",
        _decibels(quality.psnr),
        _decibels(quality.psnr_p10),
        _decibels(theirs.quality.psnr) if theirs else "",
        f"{quality.ssim:.4f}",
        f"{quality.flip:.4f}",
        f"{quality.fulfilled:.0%}",
    )


def _steps(computed: Sequence[int]) -> str:
    least, most, mean = min(computed), max(computed), sum(computed) / len(computed)
    return f"{least}" if least == most else f"{mean:.1f} ({least} to {most})"


def _decibels(psnr: float | None) -> str:
    return "identical" if psnr is None else f"{psnr:.1f}"


def _plot(of: int, results: Results) -> Plot:
    found = [each for each in results.values() if each.row.setting.of == of]
    series = []
    for engine, family in dict.fromkeys(
        (each.row.engine, each.row.setting.family) for each in found
    ):
        points = [
            each
            for each in found
            if (each.row.engine, each.row.setting.family) == (engine, family) and each.quality.psnr
        ]
        # Where both engines drew a config, its name stands at ditplan's.
        names = () if engine is Engine.CACHE_DIT else tuple(p.row.setting.name for p in points)
        series.append(
            Series(
                engine.value,
                tuple(point.speed_up.value for point in points),
                tuple(point.quality.psnr or 0 for point in points),
                names,
                family,
                dashed=engine is Engine.DIFFUSERS,
            )
        )
    return Plot(
        f"quality-{of}",
        f"PSNR against speed-up, {of} steps",
        f"speed-up against {of} uncached steps, processor time",
        "PSNR to the uncached picture, dB",
        tuple(series),
        says(of, results),
    )


def says(of: int, results: Results) -> str:
    """Which cached settings are better than fewer steps of the same speed."""
    control = [
        (each.speed_up.value, each.quality.psnr)
        for each in results.values()
        if each.row.setting.of == of and each.row.setting.steps and each.quality.psnr
    ]
    cached = [own(setting, results) for setting in _settings(of, results) if setting.config]
    better = []
    for each in cached if control else []:
        gain = (each.quality.psnr or 0) - interpolated(each.speed_up.value, control)
        if gain > 0:
            better.append(f"{each.row.setting.title} ({each.speed_up.median}, {gain:+.1f} dB)")
    return (
        f"{len(better)} of {len(cached)} cache configs are nearer to the uncached picture than "
        f"fewer steps of the same speed: {', '.join(better) or 'none'}."
    )


def interpolated(speed_up: float, control: Sequence[tuple[float, float]]) -> float:
    """PSNR of the control at a speed-up, on the line between its points; beyond them the last."""
    points = sorted(control)
    for (low, a), (high, b) in pairwise(points):
        if low <= speed_up <= high:
            return a + (b - a) * (speed_up - low) / (high - low)
    return points[0][1] if speed_up < points[0][0] else points[-1][1]


def _claims(results: Results, agreement: Agreement) -> Iterator[Claim]:
    for of in WHOLE:
        for setting in _settings(of, results):
            static_fast = setting.title == f"{_EXAMPLE}, SCM static fast"
            if setting.title == _EXAMPLE or static_fast:
                ours = own(setting, results)
                theirs = results.get(row(Engine.CACHE_DIT, setting))
                steps = sum(ours.computed) / len(ours.computed)
                name = "SCM `fast`, static" if static_fast else f"`{_EXAMPLE}`"
                yield Claim(
                    f"{name}, {of} steps, {steps:.3g} of them computed: speed-up, PSNR",
                    f"{ours.speed_up.median}, {_decibels(ours.quality.psnr)} dB",
                    f"{theirs.speed_up.median}, {_decibels(theirs.quality.psnr)} dB"
                    if theirs
                    else "",
                    "cache-dit",
                )
    if agreement.pictures:
        yield Claim(
            "pictures whose steps and pixels are those of cache-dit",
            f"{agreement.same_pixels} of {agreement.pictures}",
        )
    yield from _reachable(results)


def _reachable(results: Results) -> Iterator[Claim]:
    """What is claimed for presets, against what their masks can give at all."""
    example = [
        setting for of in WHOLE for setting in _settings(of, results) if setting.title == _EXAMPLE
    ]
    if example:
        yield Claim(
            f"`{_EXAMPLE}`, {' and '.join(map(str, WHOLE))} steps: what it allows at most",
            ", ".join(f"{ideal_speed_up(setting):.2f}x" for setting in example),
            f"{example[0].claimed}x",
            "documented for SGLang Diffusion, at best",
        )
    found = {
        setting.name: setting
        for setting in _settings(WHOLE[0], results)
        if setting.family == f"{_EXAMPLE}, SCM static"
    }
    if set(found) == set(CLAIMED):
        yield Claim(
            f"SCM {', '.join(CLAIMED)}, {WHOLE[0]} steps: what the masks allow at most",
            ", ".join(f"{ideal_speed_up(setting):.2f}x" for setting in found.values()),
            ", ".join(f"{claimed:.3g}x" for claimed in CLAIMED.values()),
            "documented for SGLang Diffusion",
        )
