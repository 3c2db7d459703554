"""The looks of the report."""

CSS = """\
:root {
  --ink: #1c1d21; --faint: #6f7480; --grid: #e3e5ea; --ground: #ffffff; --panel: #f6f7f9;
  --good: #11713d; --bad: #b3261e; --doubt: #8a5a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e7e8ec; --faint: #979ca8; --grid: #31343c; --ground: #15161a; --panel: #1d1f25;
    --good: #5fcf8e; --bad: #ff8a80; --doubt: #e6b450;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
main { max-width: 80rem; margin: 0 auto; padding: clamp(1rem, 4vw, 3.5rem); }
header { max-width: 46rem; }
h1 { font-size: clamp(1.8rem, 5vw, 2.6rem); line-height: 1.12; letter-spacing: -0.02em;
  margin: 0.1em 0 0.5em; }
h2 { font-size: 1.1rem; line-height: 1.3; letter-spacing: -0.005em; margin: 0 0 0.6rem; }
p { margin: 0 0 0.8rem; }
.kicker { margin: 0; color: var(--faint); font-size: 0.9rem; }
.lead { font-size: 1.1rem; }
.host { color: var(--faint); font-size: 0.9rem; }
.verdict { border-left: 4px solid var(--good); padding: 0.35rem 0 0.35rem 0.8rem; margin-bottom: 1.2rem; }
.verdict strong { color: var(--good); letter-spacing: 0.03em; margin-right: 0.35em; }
.verdict.fail { border-color: var(--bad); } .verdict.fail strong { color: var(--bad); }
.verdict.incomplete { border-color: var(--doubt); } .verdict.incomplete strong { color: var(--doubt); }
.figures { display: grid; gap: 2.2rem 2.2rem; margin: 2.2rem 0 2.8rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21.5rem), 1fr)); }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 32rem; }
figure svg text { font-family: inherit !important; }
figcaption { color: var(--faint); font-size: 0.88rem; line-height: 1.45; max-width: 32rem;
  margin-top: 0.4rem; }
section { margin: 0 0 2.4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: 0.28rem 0.6rem; text-align: right; white-space: nowrap; }
thead th { color: var(--faint); font-weight: 500; border-bottom: 1px solid var(--faint);
  vertical-align: bottom; }
tbody th { text-align: left; font-weight: 600; padding: 0.9rem 0 0.28rem; }
tbody td { border-top: 1px solid var(--grid); }
th:first-child, td:first-child { padding-left: 0; }
thead th:first-child, td.name, td:last-child { text-align: left; }
td.name, tbody th span, thead th:first-child { position: sticky; left: 0; background: var(--ground); }
td.name i { display: inline-block; width: 0.65em; height: 0.65em; border-radius: 50%; margin-right: 0.5em; }
td:last-child { color: var(--faint); }
tr.bad td:last-child { color: var(--bad); font-weight: 600; }
tr.stuck td:last-child { color: var(--doubt); }
section.bad h2 { color: var(--bad); }
ul { margin: 0; padding-left: 1.2rem; max-width: 60rem; }
li { margin-bottom: 0.25rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1.4rem; margin: 0 0 1rem;
  max-width: 52rem; }
dt { color: var(--faint); } dd { margin: 0; }
code, pre { font: 0.88em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { background: var(--panel); border-radius: 0.5rem; padding: 0.8rem 1rem; margin: 0; white-space: normal; }
pre span { display: inline-block; }
@media (max-width: 34rem) {
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 0.5rem; }
}
"""
