"""The report's stylesheet, light and dark."""

STYLE = """
:root { color-scheme: light dark; --text: #1c2330; --soft: #5b6472; --line: #d9dde3; --page: #fff;
  --a: #2f6fbb; --b: #c2410c; --c: #7c3aed; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ee; --soft: #a0a8b4; --line: #343b46; --page: #14181e;
  --a: #6aa9f4; --b: #fb923c; --c: #b794f6; } }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p, li { color: var(--soft); font-size: .85rem; margin: .3rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
.n { text-align: right; }
svg { display: block; width: 100%; max-width: 60rem; }
svg.key { display: inline-block; width: .7rem; height: .7rem; margin-left: .8rem; }
text { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--line); fill: none; }
.calls, .p50, .input, .cost { fill: var(--a); stroke: none; }
.errors, .p99 { fill: var(--b); stroke: none; }
.p95, .output { fill: var(--c); stroke: none; }
.line { fill: none; stroke-width: 1.5; }
.p50.line { stroke: var(--a); } .p95.line { stroke: var(--c); } .p99.line { stroke: var(--b); }
"""
