"""What a kept passage and a guessed token cost and save."""

from __future__ import annotations

import json

from stored import RESULTS


def cache_table() -> str:
    """Return the Markdown of what a kept passage and a guessed token cost and save."""
    path = RESULTS / "drafting.json"
    if not path.exists():
        return "Not measured yet."
    found = json.loads(path.read_text())
    lines = [
        "| KV cache | bytes per passage | computing it | keeping it | from memory | from disk |",
        "|---|---|---|---|---|---|",
    ]
    run = found["cache"]
    for kv_type in ("f16", "q8_0"):
        r = run[kv_type]
        prefill = r["prefill_ms_per_passage"]

        def cost(ms: float, prefill: float = prefill) -> str:
            return f"{ms:.1f} ms ({100 * ms / prefill:.1f}%)"

        lines.append(
            f"| {kv_type} | {r['bytes_per_passage']:,} | {prefill:.0f} ms "
            f"| {cost(r['keep_ms_per_passage'])} | {cost(r['memory_hit_ms_per_passage'])} "
            f"| {cost(r['disk_hit_ms_per_passage'])} |"
        )
    guess = found["lookup"]
    plain, fast = (guess["decode_s_median"][k] for k in ("plain", "lookup"))
    lines += [
        "",
        f"{run['passages']} passages, {run['f16']['tokens']} tokens, {run['model']}, "
        f"{run['machine']['cpu']}, {run['machine']['threads']} threads; `{run['command']}`.",
        "",
        f"Guessing {guess['guesses']} tokens a step over {guess['prompts']} prompts: "
        f"{guess['same']} drafts the same token for token, {guess['parted_at_a_tie']} part at a "
        f"tie (two choices within {guess['tie_nats']} nats behind the same text, the library's "
        f"noise between shapes of a batch), {guess['other_differences']} differ otherwise; "
        f"{guess['accepted']} of "
        f"{guess['proposed']} guesses accepted; decoding five drafts takes {fast:.2f} s instead of "
        f"{plain:.2f} s, medians; `{guess['command']}`.",
    ]
    for name, counted in found.items():
        if not name.startswith("tokens "):
            continue
        shares = ", ".join(
            f"{layout} {counted[layout]['computed'] / counted[layout]['distinct']:.3f} times "
            f"{counted[layout]['distinct']:,} (one by one {counted[layout]['one_by_one']:,})"
            for layout in ("exact", "standalone")
        )
        lines += [
            "",
            f"Tokens computed for {counted['subsets']} subsets of {counted['per_draft']} passages, "
            f"beside the distinct ones: {shares}; `{counted['command']}`.",
        ]
    return "\n".join(lines)
