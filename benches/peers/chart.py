"""SVG charts without a library, for light and dark pages."""

from html import escape

INK, FAINT = "#767676", "#76767655"
COLOURS = ["#2f7ed8", "#c9672a", "#4a9d5b", "#9c5fb5", "#b5a13a", "#888888"]
FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def bars(title, groups, goal_note=""):
    """`groups`: (title, unit, [(name, median, low, high)]). Each has a bar, and its spread as a line."""
    width, left, row, parts, y = 760, 200, 20, [], 34
    for heading, unit, entries in groups:
        parts.append(_text(8, y, f"{heading} ({unit})", weight="bold"))
        y += 10
        most = max((high for _, _, _, high in entries), default=1) or 1
        scale = (width - left - 90) / most
        for number, (name, median, low, high) in enumerate(entries):
            colour = COLOURS[0] if name.startswith("sidentity") else COLOURS[5]
            parts.append(_text(left - 8, y + 14, name, anchor="end"))
            parts.append(f'<rect x="{left}" y="{y + 4}" width="{median * scale:.1f}" height="13" fill="{colour}"/>')
            middle = y + 10.5
            parts.append(_line(left + low * scale, middle, left + high * scale, middle, INK))
            parts.append(_text(left + high * scale + 6, y + 14, figure(median)))
            y += row
        y += 26
    return _svg(title + goal_note, width, y - 10, parts)


def lines(title, x_label, y_label, series, logarithmic=True):
    """`series`: name → [(x, median, low, high)]. The y axis begins at zero."""
    import math

    width, height, left, top, bottom = 480, 260, 56, 34, 44
    points = [point for values in series.values() for point in values]
    xs = sorted({x for x, *_ in points})
    most = max((high for *_, high in points), default=1) * 1.1 or 1
    position = (lambda x: math.log(x + 1)) if logarithmic else float
    low, high = position(xs[0]), position(xs[-1])
    place_x = lambda x: left + (position(x) - low) / ((high - low) or 1) * (width - left - 20)
    place_y = lambda y: height - bottom - y / most * (height - top - bottom)
    parts = [_text(8, 18, title, weight="bold")]
    for step in range(5):
        value = most * step / 4
        parts.append(_line(left, place_y(value), width - 20, place_y(value), FAINT))
        parts.append(_text(left - 6, place_y(value) + 4, figure(value), anchor="end"))
    for x in xs:
        parts.append(_text(place_x(x), height - bottom + 16, _tick(x), anchor="middle"))
    parts.append(_text((left + width) / 2, height - 8, x_label, anchor="middle"))
    parts.append(_text(width - 20, 18, y_label, anchor="end"))
    for number, (name, values) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{place_x(x):.1f},{place_y(median):.1f}" for x, median, _, _ in values)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, median, low_y, high_y in values:
            parts.append(_line(place_x(x), place_y(low_y), place_x(x), place_y(high_y), colour))
            parts.append(f'<circle cx="{place_x(x):.1f}" cy="{place_y(median):.1f}" r="3" fill="{colour}"/>')
        if len(series) > 1:
            parts.append(_text(left + 8, height - bottom - 8 - 15 * number, name, fill=colour))
    return _svg(title, width, height, parts)


def figure(value):
    """Formats a number with three significant figures."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _tick(x):
    """Formats bytes in short form: the labels would overlap otherwise."""
    if not isinstance(x, int):
        return str(x)
    for unit, size in (("Mi", 1 << 20), ("Ki", 1 << 10)):
        if x and x % size == 0:
            return f"{x // size} {unit}"
    return f"{x:,}"


def _text(x, y, text, anchor="start", weight="normal", fill=INK):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{fill}">{escape(text)}</text>'


def _line(x1, y1, x2, y2, stroke):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"/>'


def _svg(title, width, height, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" {FONT} role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", *parts, "</svg>", ""])
