"""Write ``src/stanch/scan/tables/fold.json``, the pinned table of ``stanch-fold/2``, from this Python's Unicode data.

Run with Python 3.11 (Unicode 14.0.0), the version that the table is pinned to::

    python tools/make_fold_table.py [OUT]

The confusable letters are a table of our own: Cyrillic, Greek, Armenian, Cherokee and Latin letters that look like one
ASCII letter, white letters on black and regional indicators, and dashes, quotes and slashes. The digits of all scripts
are from the Unicode data. Mathematical, fullwidth, circled and other styled letters need no entry, because NFKD already
leads them to ASCII.
"""

import json
import sys
import unicodedata
from pathlib import Path

UNICODE = "14.0.0"
TARGET = Path(__file__).resolve().parents[1] / "src/stanch/scan/tables/fold.json"

# Default_Ignorable_Code_Point of DerivedCoreProperties.txt, bidi controls and tag characters included.
IGNORABLE = (
    (0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip

_IGNORABLE = frozenset(point for first, last in IGNORABLE for point in range(first, last + 1))

CONFUSABLE = {
    # Cyrillic
    **dict(zip("АВСЕНІЈКМОРЅТХУҮԚԜѴӀ", "ABCEHIJKMOPSTXYYQWVI", strict=True)),
    **dict(zip("асеорѕухіјһԁԛԝѵӏүг", "aceopsyxijhdqwvlyr", strict=True)),
    # Greek
    **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϜͿ", "ABEZHIKMNOPTYXFJ", strict=True)),
    **dict(zip("αγινορσυϳ", "ayivopouj", strict=True)),
    # Armenian
    **dict(zip("ՕՍՏԼօսհոցյ", "OUSLouhngj", strict=True)),
    # Cherokee
    **dict(zip("ᎠᎡᎢᎪᎫᎬᎳᎷᎻᏀᏃᏏᏒᏙᏚᏞᏟᏢᏦᏴ", "DRTAJEWMHGZbRVSLCPKB", strict=True)),
    # Latin letters of other alphabets and small capitals
    **dict(zip("ıɑɡɩɪȷᴄᴏᴜᴠᴡᴢꜱ", "iagiijcouvwzs", strict=True)),
    **dict(zip("ᴀʙᴅᴇꜰɢʜᴊᴋʟᴍɴᴘꞯʀᴛʏ", "abdefghjklmnpqrty", strict=True)),
    # Letters in black circles and squares, regional indicators
    **{chr(first + place): chr(0x41 + place) for first in (0x1F150, 0x1F170, 0x1F1E6) for place in range(26)},
    # Dashes, quotes, slashes, colon
    **dict(zip("‐‒–−⁃", "-----", strict=True)),
    **dict(zip("‘’‛ʼʹ“”„‟", "'''''\"\"\"\"", strict=True)),
    **dict(zip("⁄∕∶", "//:", strict=True)),
}  # fmt: skip


def digits_of(char: str) -> str:
    """Return the ASCII digits of a digit of any script and of a number in a circle; empty for all else."""
    if (digit := unicodedata.digit(char, None)) is not None:
        return str(digit)
    return str(int(unicodedata.numeric(char))) if char.isnumeric() and "CIRCLED" in unicodedata.name(char, "") else ""


CONFUSABLE |= {chr(point): digits for point in range(0x80, 0x110000) if (digits := digits_of(chr(point)))}


def ignorable(point: int) -> bool:
    """Tell whether the code point is dropped before anything else."""
    return point in _IGNORABLE


def starters(text: str) -> str:
    """Drop ignorable code points, marks and everything with a combining class."""
    return "".join(
        c
        for c in text
        if not (ignorable(ord(c)) or unicodedata.category(c) in {"Mn", "Me"} or unicodedata.combining(c))
    )


def detect(char: str) -> str:
    """Return what the ``detect`` view makes of one code point."""
    if ignorable(ord(char)):
        return ""
    skeleton = "".join(CONFUSABLE.get(c, c) for c in starters(unicodedata.normalize("NFKD", char)))
    return "".join(" " if unicodedata.category(c) in {"Zs", "Zl", "Zp"} else c for c in skeleton)


def without_case(char: str) -> str:
    """Fold the case of one starter so that a letter and its capital agree, even if only one is confusable."""
    capital = CONFUSABLE.get(char.upper(), char.upper())
    folded = capital if len(capital) == 1 and capital.isascii() else CONFUSABLE.get(char, char)
    return "".join(CONFUSABLE.get(c, c) for c in starters(unicodedata.normalize("NFKD", folded.casefold())))


def index(char: str) -> str:
    """Return what the ``index`` view makes of one code point: caseless letters and digits, a space for the rest."""
    if ignorable(ord(char)):
        return ""
    folded = "".join(without_case(c) for c in starters(unicodedata.normalize("NFKD", char)))
    return "".join(c if unicodedata.category(c)[0] in "LN" else " " for c in folded)


def table() -> dict[str, object]:
    """Return the whole table; Hangul syllables are left out because their decomposition is arithmetic."""
    detected, indexed, separators = {}, {}, []
    for point in range(0x80, 0x110000):
        if 0xAC00 <= point <= 0xD7A3 or 0xD800 <= point <= 0xDFFF:
            continue
        char = chr(point)
        # Code points without a character are most of all: they have no case and lead to nothing else.
        is_empty = unicodedata.category(char) in {"Cn", "Co"} and not ignorable(point)
        seen, kept = (char, " ") if is_empty else (detect(char), index(char))
        if seen != char:
            detected[f"{point:x}"] = seen
        if kept == " " and seen == char:
            if separators and separators[-1][1] == point - 1:
                separators[-1][1] = point
            else:
                separators.append([point, point])
        elif kept != seen:
            indexed[f"{point:x}"] = kept
    return {"fold": "stanch-fold/2", "unicode": UNICODE, "detect": detected, "index": indexed, "separators": separators}


def main() -> None:
    """Write the table."""
    if unicodedata.unidata_version != UNICODE:
        raise SystemExit(f"expected Unicode {UNICODE}, this Python has {unicodedata.unidata_version}")
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    out.write_text(
        json.dumps(table(), ensure_ascii=True, separators=(",", ":"), sort_keys=True) + "\n", encoding="ascii"
    )


if __name__ == "__main__":
    main()
