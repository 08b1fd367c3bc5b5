"""How a page looks."""

STYLE = """\
:root { --ink: #1b2430; --muted: #5b6675; --faint: #e3e7ec; --page: #f6f7f9 }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 14px/1.5 -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Helvetica, Arial, sans-serif }
main { max-width: 984px; margin: 0 auto; padding: 32px }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 15px; margin: 0 0 12px; overflow-wrap: anywhere }
header p { margin: 4px 0 20px; color: var(--muted) }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; padding: 0; margin: 0 0 20px; list-style: none }
.tiles li { flex: 1 1 150px; background: #fff; border: 1px solid var(--faint); border-radius: 10px;
  padding: 12px 16px; color: var(--muted) }
.tiles b { display: block; color: var(--ink); font-size: 16px }
svg { display: block; max-width: 100%; height: auto }
section { background: #fff; border: 1px solid var(--faint); border-radius: 10px;
  padding: 24px 32px; margin: 0 0 20px }
dl { display: grid; grid-template-columns: 92px 1fr; gap: 4px 16px; margin: 0 }
dt { grid-column: 1; color: var(--muted) }
dd { grid-column: 2; margin: 0; overflow-wrap: anywhere }
code, pre, .config { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas,
  'DejaVu Sans Mono', monospace }
pre { margin: 0 0 12px; padding: 12px 16px; background: var(--page); border-left: 4px solid;
  border-radius: 4px; overflow-x: auto; white-space: pre }
pre:last-child { margin: 0 }
pre.error { border-color: #b42318 } pre.warning { border-color: #d28a12 }
pre.hint { border-color: #175cd3 }
.config { margin: 0; padding: 0 0 0 40px; overflow-x: auto }
.config li { white-space: pre; padding-left: 8px } .config li::marker { color: var(--muted) }
.config .error { background: #fde8e6 } .config .warning { background: #fdf0d3 }
.config .hint { background: #e6effd }
footer { color: var(--muted); overflow-wrap: anywhere }
@media print { body { background: #fff } section { break-inside: avoid } }
"""
