"""The README's reference tables, made from the code: `python -m tests.house.tables` writes them."""

from __future__ import annotations

import inspect
from pathlib import Path

from authproxy.core.errors import every_refusal
from authproxy.core.strict import settings
from authproxy.metrics import Metrics
from authproxy.tools.loading import toolbox

README = Path(__file__).parents[2] / "README.md"


def _settings() -> str:
    rows = ["| key | default | what it is |", "|---|---|---|"]
    for setting in settings():
        default = (
            f"`{setting.default}`" if setting.default not in ("", "required", "none") else setting.default
        )
        doc = setting.doc.replace("|", "\\|")
        rows.append(f"| `{setting.path}` | {default or 'none'} | {doc} |")
    return "\n".join(rows)


def _refusals() -> str:
    rows = ["| code | status | act | means |", "|---|---|---|---|"]
    for refusal in every_refusal():
        doc = " ".join((inspect.getdoc(refusal) or "").split())
        rows.append(f"| `{refusal.code}` | {refusal.status} | `{refusal.act}` | {doc} |")
    return "\n".join(rows)


def _metrics() -> str:
    metrics = Metrics()
    metrics.exposition({("acme", "active"): 1})
    rows = ["| name | labels | what it is |", "|---|---|---|"]
    labels = {
        getattr(metric, "_name", ""): ", ".join(getattr(metric, "_labelnames", ()))
        for metric in vars(metrics).values()
    }
    for family in metrics.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        shown = ", ".join(getattr(family, "_labelnames", ())) or labels.get(family.name)
        rows.append(f"| `{name}` | {shown or '-'} | {family.documentation} |")
    return "\n".join(rows)


def _tools() -> str:
    box = toolbox()
    rows = ["| toolkit | tools | of which only read | route |", "|---|---|---|---|"]
    for kit in box.kits.values():
        own = [tool for tool in box if tool.toolkit == kit.name and not tool.hidden]
        reading = sum(tool.marks.read_only for tool in own)
        rows.append(f"| `{kit.name}` {kit.version} | {len(own)} | {reading} | `{kit.route}` |")
    missing = ", ".join(f"`{name}`" for name in box.missing) or "none"
    return "\n".join([*rows, "", f"Missing of these toolkits: {missing}."])


TABLES = {"settings": _settings, "refusals": _refusals, "metrics": _metrics, "tools": _tools}


def written(page: str) -> str:
    """`page` with each marked table made anew."""
    for name, make in TABLES.items():
        head, mark, rest = page.partition(f"<!-- {name} -->\n")
        _old, end, tail = rest.partition("\n<!-- end -->")
        assert mark, f"README.md has no place for {name}"
        assert end, f"README.md has no end for {name}"
        page = head + mark + make() + end + tail
    return page


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
