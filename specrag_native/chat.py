"""Messages laid out as a prompt.

Law: content never passes through a template; only template text is control.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from specrag_native.protocol import Prompt, Segment


def lay_out_chat(
    messages: Sequence[tuple[str, tuple[Segment, ...]]],
    apply_template: Callable[[list[tuple[str, str]], bool], str | None],
) -> Prompt:
    """Write messages as a prompt whose template text is control and whose content is not.

    The template is applied to placeholders, and the result is cut at them, so content never passes
    through the template. ``apply_template(messages, add_assistant)`` returns the text, or ``None``
    when the model has no usable template; a plain layout is used then.
    """
    prefill: tuple[Segment, ...] = ()
    turns = list(messages)
    if turns and turns[-1][0] == "assistant":
        prefill = turns.pop()[1]
    marks = [f"\u2983{i}\u2984" for i in range(len(turns))]
    written = apply_template(
        [(role, mark) for (role, _), mark in zip(turns, marks, strict=True)], True
    )
    if written is None or any(written.count(mark) != 1 for mark in marks):
        written = "".join(f"{mark}\n\n" for mark in marks)
    prompt: list[Segment] = []
    for (_, content), mark in zip(turns, marks, strict=True):
        before, written = written.split(mark)
        if before:
            prompt.append(Segment(before, control=True))
        prompt.extend(content)
    if written:
        prompt.append(Segment(written, control=True))
    return (*prompt, *prefill)
