"""How the page looks: one style sheet, light and dark, for wide and narrow screens and for paper."""

CSS = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5a6475; --line: #d9dee7; --page: #ffffff; --card: #f5f7fa;
  --accent: #1f5fbf; --corpus: #a9b3c2; --chosen: #1f5fbf; --played: #0e8a7d; --warn: #8a5a00; --warnbg: #fff6e0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ef; --soft: #9aa5b5; --line: #343c49; --page: #14181f; --card: #1d232c; --accent: #8ab4ff;
    --corpus: #5d6878; --chosen: #7fb0ff; --played: #4fd1c0; --warn: #ffd27a; --warnbg: #33290f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
.skip { position: absolute; left: -999em; }
.skip:focus { left: 1rem; top: 1rem; padding: .5rem 1rem; background: var(--card); z-index: 9; }
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 2.75rem 0 .5rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.25rem 0 .4rem; overflow-wrap: anywhere; }
p { max-width: 46rem; margin: .5rem 0; }
a { color: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; padding: 0; margin: 1rem 0 0; }
.note, .sub { color: var(--soft); font-size: .9rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1rem 0;
  padding: 0; }
.cards div { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
.cards dt { color: var(--soft); font-size: .85rem; }
.cards dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.warnings { background: var(--warnbg); border-left: 4px solid var(--warn); padding: .6rem 1rem .6rem 2rem;
  margin: 1rem 0; }
.pair { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0 2rem; }
@media (min-width: 62rem) { .pair.two { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0 1rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
th, td { text-align: left; vertical-align: top; padding: .28rem .9rem .28rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
tbody th { font-weight: 500; }
td code { display: inline-block; min-width: 12rem; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
td, th { overflow-wrap: break-word; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 0 2rem; }
.mix { width: 100%; table-layout: fixed; }
.mix th { width: 30%; overflow-wrap: anywhere; }
@media (max-width: 40rem) { .mix tr, .mix th, .mix td { display: block; width: 100%; }
  .mix th { border: 0; padding-bottom: 0; } }
.bar { display: flex; align-items: center; gap: .5rem; line-height: 1.25; font-size: .85rem; }
.bar i { height: .6rem; min-width: 1px; border-radius: 2px; flex: none; }
.bar span { flex: none; font-variant-numeric: tabular-nums; color: var(--soft); white-space: nowrap; }
i.corpus { background: var(--corpus); } i.chosen { background: var(--chosen); } i.played { background: var(--played); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .5rem 0;
  font-size: .9rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .4rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1.25rem 1.75rem;
  align-items: start; }
figure { margin: 0; }
figcaption { font-size: .9rem; margin-bottom: .3rem; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 11px; fill: var(--soft); }
polygon.corpus { fill: var(--corpus); opacity: .75; }
polyline.chosen { fill: none; stroke: var(--chosen); stroke-width: 2; }
.tick { stroke: var(--soft); stroke-width: 1; }
details { margin: .4rem 0; }
summary { cursor: pointer; color: var(--accent); }
.quotes { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 2rem; }
blockquote { margin: .5rem 0 .9rem; padding: .1rem 0 .1rem .9rem; border-left: 3px solid var(--line); }
blockquote p { margin: 0; overflow-wrap: anywhere; }
#map-note { position: fixed; z-index: 8; width: 20rem; max-width: calc(100vw - 1rem); pointer-events: none;
  background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .8rem;
  box-shadow: 0 2px 10px #0004; font-size: .85rem; }
#map-note p { margin: .15rem 0; overflow-wrap: anywhere; }
#map-note p:nth-child(2n) { color: var(--soft); }
#map { min-height: 35rem; border: 1px solid var(--line); border-radius: .4rem; padding: .3rem; }
fieldset { border: 1px solid var(--line); border-radius: .4rem; margin: .75rem 0; padding: .3rem .9rem .5rem; }
fieldset label { display: inline-flex; align-items: center; gap: .35rem; margin: .15rem 1.1rem .15rem 0;
  font-size: .9rem; }
fieldset label i { width: .8rem; height: .8rem; border-radius: 50%; display: inline-block; }
code { font-size: .9em; overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: .85rem; padding-top: 2rem; padding-bottom: 3rem; }
@media print { nav, .skip, fieldset { display: none; } details > * { display: block; } }
"""
