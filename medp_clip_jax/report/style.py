"""The report's looks: one style sheet, light and dark after the reader's system, desktop and phone."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #16202c; --soft: #5b6878; --faint: #8b97a5; --line: #e1e6ec;
  --hover: #f0f4f8;
  --mask: #0b62d6; --box: #0a8a72; --point: #c2570c; --none: #7b8794; --crop: #8b5bb5;
  --segmented: #2b8fb3; --blackout: #4a5560; --blur: #b07d2b; --red_circle: #c8373c;
  --heat: 11, 98, 214; --right: #10793f; --right-bg: #e3f5ea; --wrong: #b3261e; --wrong-bg: #fdeae8; --note: #fff6e0;
  --note-ink: #6b4a00;
}
@media (prefers-color-scheme: dark) { :root {
  --page: #0e1318; --card: #171e26; --ink: #e8edf3; --soft: #a3b0bf; --faint: #748190; --line: #2a343f;
  --hover: #1e2731;
  --mask: #5aa2ff; --box: #37c6a6; --point: #f5974e; --none: #8d99a6; --crop: #bb93e3;
  --segmented: #6cc4e0; --blackout: #b3bcc6; --blur: #dcb368; --red_circle: #ff7a7d;
  --heat: 90, 162, 255; --right: #6fdd9b; --right-bg: #14311f; --wrong: #ff9a92; --wrong-bg: #3b1a18; --note: #30270f;
  --note-ink: #f3d68a;
} }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 27px; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 6px; }
h2 { font-size: 19px; letter-spacing: -.01em; margin: 40px 0 4px; }
h3 { font-size: 14px; margin: 0 0 10px; }
p { margin: 4px 0 12px; max-width: 78ch; color: var(--soft); }
.meta { color: var(--soft); display: flex; flex-wrap: wrap; gap: 2px 18px; font-size: 14px; }
.note { background: var(--note); color: var(--note-ink); border-radius: 10px; padding: 10px 14px; margin: 18px 0 0;
  max-width: none; font-weight: 550; }
nav { display: flex; gap: 4px 16px; flex-wrap: wrap; font-size: 14px; margin-top: 16px; }
a { color: var(--mask); text-decoration: none; } a:hover { text-decoration: underline; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px; min-width: 0; }
.grid { display: grid; gap: 14px; }
.heads { grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); margin-top: 20px; }
.beside { display: flex; flex-wrap: wrap; gap: 10px 36px; align-items: flex-start; }
.beside > * { min-width: 0; } .beside > :last-child { flex: 1 1 260px; }
.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.head .value { font-size: 31px; font-weight: 650; letter-spacing: -.03em; line-height: 1.15; }
.head .value small { font-size: 17px; font-weight: 550; color: var(--faint); margin-left: 1px; }
.head .name { color: var(--soft); font-size: 13.5px; } .head .range { color: var(--faint); font-size: 12.5px; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th { text-align: right; font-weight: 550; color: var(--soft); font-size: 12.5px; padding: 6px 10px;
  border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: bottom; }
td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 4px; position: sticky; left: 0;
  background: var(--card); }
tbody tr:hover td:first-child { background: var(--hover); }
tr:last-child td { border-bottom: 0; } tbody tr:hover { background: var(--hover); }
td small { color: var(--faint); font-size: 11.5px; font-weight: 400; margin-left: 5px; }
td small.under { display: block; margin: -2px 0 0; }
td.strong { font-weight: 650; }
.dot { display: inline-block; width: 9px; height: 9px; border-radius: 3px; margin-right: 8px; }
.yes { color: var(--right); font-weight: 600; } .no { color: var(--wrong); font-weight: 600; }
details > summary { cursor: pointer; color: var(--mask); font-size: 14px; padding: 6px 0; }
pre { overflow-x: auto; font-size: 12px; color: var(--soft); margin: 6px 0 0; }
svg { display: block; max-width: 100%; height: auto; }
svg text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: var(--soft); }
.axis { stroke: var(--line); stroke-width: 1; } .curve { fill: none; stroke-width: 1.9; stroke-linejoin: round; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 12.5px; color: var(--soft); margin-top: 8px; }
.gallery { grid-template-columns: repeat(auto-fill, minmax(min(100%, 258px), 1fr)); }
.shot { padding: 0; overflow: hidden; display: flex; flex-direction: column; }
.frame { position: relative; background: #0b0e12; aspect-ratio: 1; }
.frame svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.inset { position: absolute; bottom: 8px; width: 34%; aspect-ratio: 1; border-radius: 8px; overflow: hidden;
  box-shadow: 0 0 0 2px rgba(255,255,255,.9), 0 3px 10px rgba(0,0,0,.5); }
.inset img { width: 100%; height: 100%; object-fit: cover; display: block; image-rendering: auto; }
.badge { position: absolute; left: 8px; top: 8px; font-size: 12px; font-weight: 600; padding: 2px 9px;
  border-radius: 99px; }
.badge.yes { background: var(--right-bg); } .badge.no { background: var(--wrong-bg); }
.shot .text { padding: 12px 14px 14px; } .shot .truth { font-weight: 600; overflow-wrap: anywhere; }
.shot .where { color: var(--faint); font-size: 12px; margin-bottom: 8px; overflow-wrap: anywhere; }
.answer { display: grid; grid-template-columns: 1fr auto; gap: 0 10px; font-size: 13px; padding: 2px 0;
  color: var(--soft); font-variant-numeric: tabular-nums; }
.answer span:first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.answer.true { color: var(--right); font-weight: 600; }
.answer i { grid-column: 1 / -1; height: 3px; border-radius: 2px; background: currentColor; opacity: .45; }
footer { margin-top: 44px; border-top: 1px solid var(--line); padding-top: 14px; font-size: 13px; color: var(--soft); }
@media (max-width: 640px) {
  main { padding: 18px 14px 40px; } h1 { font-size: 22px; } h2 { margin-top: 30px; } .card { padding: 13px 12px; }
  .shot { padding: 0; } .heads { grid-template-columns: 1fr 1fr; gap: 10px; } .head .value { font-size: 25px; }
  td, th { padding: 6px 7px; }
}
@media print { body { background: #fff; } .card { break-inside: avoid; } details { display: block; } }
"""
