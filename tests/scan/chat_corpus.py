"""Chat records as JSON lines, made one by one from a seed: ordinary talk, and here and there a planted value.

Four turns in a hundred hold a planted value and four a hard negative, all generated. Sentences are put together from
word lists of our own, so that few of them are alike.
"""

import json
import random
from collections.abc import Iterator

from stanch.scan.examples import ExampleMaker

PLANTED, NEGATIVE = 0.04, 0.04
PLANTS = (
    "The deploy script still uses ghp_{A62:30}{crc62} somewhere.",
    "Publishing fails with npm_{A62:30}{crc62}, see the log.",
    "We set the access key id to AKIA{b32:16} in the console.",
    "The bot runs with xoxb-{d:12}-{d:13}-{A62:24} as its token.",
    "Payments use sk_live_{A62:24} since the migration.",
    "The request carried {jwt} in its header.",
    "Here it is:\n-----BEGIN PRIVATE KEY-----\n{b64:64}\n{b64:64}\n-----END PRIVATE KEY-----\nthanks.",
    "It connects to postgres://app:{A62:16}@db.internal:5432/main every minute.",
    "I paid with card {luhn:453:16} in the shop.",
    "Send the refund to {iban:DE} please.",
    "You can reach me at ana.{a36:6}@correo.es any time.",
    "My social security number is 536-22-8745 by the way.",
    "Call me on +1 202 555 0143 after six.",
    "I met Maria Thompson in Springfield.",
    "My name is Zbigniew Nowak, and I bought two of them.",
    "The last login came from 185.199.108.153 at night.",
)
NEGATIVES = (
    "The fix is in commit {hex:40} on main.",
    "The request id was {hex:8}-{hex:4}-4{hex:3}-a{hex:3}-{hex:12} in the trace.",
    "The parcel has tracking number 4{d:15} now.",
    "The manual shows AKIAIOSFODNN7EXAMPLE as the key.",
    "I made up ghp_{A62:36} for the test.",
    'The lock file says "integrity": "sha512-{b64:86}==" for it.',
    "The page embeds data:image/png;base64,{b64:120} as its logo.",
    "Set api_key = your_api_key_here first.",
    "The printer sits at 10.4.{d:2}.{d:2} in the office.",
    "It broke after the upgrade to version {d:2}.{d:2}.{d:3} this week.",
    "The book has ISBN 978-3-16-148410-0 on its back.",
)
SUBJECTS = [
    "the team",
    "the manager",
    "our customer",
    "the report",
    "the new printer",
    "my neighbour",
    "the kitchen",
    "a small shop",
    "the teacher",
    "the second version",
    "this recipe",
    "the server",
    "the old bridge",
    "the committee",
    "one of the drivers",
    "the garden",
    "the model",
    "the training plan",
    "our landlord",
    "the spreadsheet",
    "the train",
    "the doctor",
    "the library",
    "a friend of mine",
    "the contract",
]
VERBS = [
    "needs",
    "explains",
    "opened",
    "will replace",
    "has finished",
    "forgot",
    "moved",
    "is looking for",
    "could not find",
    "paid for",
    "described",
    "answered",
    "keeps",
    "should check",
    "has lost",
    "is going to repair",
    "compared",
    "wrote about",
    "cancelled",
    "prefers",
    "measured",
    "painted",
]
OBJECTS = [
    "the garden door",
    "a longer answer",
    "two boxes of apples",
    "the last invoice",
    "every window",
    "the list of names",
    "a better way",
    "the morning meeting",
    "all the chairs",
    "the red bicycle",
    "a short story",
    "the missing file",
    "the weather",
    "three old books",
    "the next step",
    "a bowl of soup",
    "the difference between them",
    "a quiet place",
    "the whole afternoon",
    "some advice",
    "the map",
]
ENDS = [
    "before the end of the week",
    "because it was raining",
    "and nobody noticed",
    "after a long discussion",
    "in most cases",
    "although it costs more",
    "without any help",
    "as we agreed",
    "when the light is good",
    "with a little patience",
    "so far",
    "for the first time",
    "near the river",
    "in about 20 minutes",
    "more than 3 times",
    "at home",
    "which is fine",
    "on Tuesday",
]
QUESTIONS = [
    "Can you explain how that works?",
    "What would you do next?",
    "Could you write it in simpler words?",
    "Is there a better way?",
    "How long does it take to cook rice?",
    "Why is the sky blue at noon?",
    "Please summarise the text below.",
]
CODE = (
    "```python\ndef total(items):\n    return sum(item.price * item.count for item in items)\n```",
    "```sql\nSELECT city, count(*) FROM visits WHERE year = 2024 GROUP BY city ORDER BY 2 DESC;\n```",
    "1. Boil the water.\n2. Add 200 g of pasta.\n3. Wait 9 minutes.\n4. Serve it hot.",
)


class ChatMaker:
    """Makes chat records from one seed."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._maker = ExampleMaker(f"chat/{seed}")

    def lines(self, size: int) -> Iterator[bytes]:
        """Yield JSON lines with their line ends until they have at least ``size`` bytes together."""
        made = 0
        while made < size:
            line = json.dumps(self.record(), ensure_ascii=self._rng.random() < 0.5).encode() + b"\n"
            made += len(line)
            yield line

    def prose(self, size: int) -> str:
        """Return at least ``size`` characters of talk in which nothing is planted."""
        text = self._sentence()
        while len(text) < size:
            text += " " + self._sentence()
        return text

    def record(self) -> dict[str, object]:
        """Return a conversation of two to eight turns."""
        turns = [
            {"role": ("user", "assistant")[number % 2], "content": self._turn((6, 24)[number % 2])}
            for number in range(2 * self._rng.randint(1, 4))
        ]
        return {"messages": turns}

    def _turn(self, longest: int) -> str:
        rng = self._rng
        parts = [self._sentence() for _ in range(rng.randint(1, longest))]
        chance = rng.random()
        if chance < PLANTED:
            parts.insert(rng.randint(0, len(parts)), self._maker.fill(rng.choice(PLANTS)))
        elif chance < PLANTED + NEGATIVE:
            parts.insert(rng.randint(0, len(parts)), self._maker.fill(rng.choice(NEGATIVES)))
        if rng.random() < 0.05:
            parts.append("\n\n" + rng.choice(CODE))
        return " ".join(parts)

    def _sentence(self) -> str:
        rng = self._rng
        kind = rng.random()
        if kind < 0.08:
            return rng.choice(QUESTIONS)
        text = f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)} {rng.choice(ENDS)}"
        if kind < 0.1:
            text = text.replace("e", "é", 1) + " – naïvely"
        return text[0].upper() + text[1:] + rng.choice(".....!?")
