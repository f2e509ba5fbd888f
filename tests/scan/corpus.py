"""A labelled corpus of support mails, made from templates of our own: planted values and hard negatives, no real data.

Each message comes with the spans of what was planted. The values are random, so no rule can be tuned to them; the
templates are ordinary prose. Names come half from common ones and half from invented ones that no gazetteer holds.
"""

import random
from dataclasses import dataclass

from stanch.scan.examples import ExampleMaker


def _words(text: str) -> list[str]:
    return text.split()


GIVEN = _words(
    "Alice Brian Carla David Emma Frank Grace Henry Irene James Karen Louis Maria Nathan Olivia Peter Rachel Samuel"
)
FAMILY = _words(
    "Johnson Smith Garcia Miller Davis Wilson Anderson Taylor Moore Martin Jackson Thompson White Lopez Harris Clark"
)
RARE = _words("Zbigniew Oluwaseun Thandiwe Yevgenia Ngozi Xiomara Ragnhild Bjarke Chidera Siobhra")
STREETS = _words("Maple Oak Cedar Elmwood Highland Sunset Lakeview Chestnut Willow Meadow")
TYPES = _words("Street Avenue Road Lane Drive Boulevard Court")
CITIES = ["Springfield, OR 97403", "Denver, CO 80203", "Austin, TX 73301", "Boston, MA 02118"]
MONTHS = _words("January February March April May June July August September October November December")
PROSE = [
    "The invoice from last month was charged twice and nobody has answered yet.",
    "We restarted the router, cleared the cache and the error came back after ten minutes.",
    "Please let me know when the replacement part will be shipped to our warehouse.",
    "The new release broke the export, so half of our reports are empty since Monday.",
    "I read the help page about refunds but the button it mentions is missing.",
    "Your colleague promised a call back on Tuesday, and we are still waiting.",
    "The app shows a blank page after the update to version 4.12.1 on both tablets.",
    "Is there a discount for schools, and does the plan include storage?",
    "Shipping to New York took nine days, which is longer than the Standard Plan says.",
    "Our Customer Support Team meets every Monday Morning at the Main Office.",
]


@dataclass(frozen=True)
class Plant:
    """A planted value: its kind and its span in the text; ``kind`` empty marks a hard negative."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Message:
    """One mail and what was planted in it."""

    text: str
    plants: tuple[Plant, ...]


class CorpusMaker:
    """Makes messages from one seed."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._maker = ExampleMaker(f"corpus/{seed}")

    def message(self) -> Message:
        """Return a mail of some sentences with up to three plants and up to two hard negatives."""
        rng = self._rng
        parts = [(sentence, "", "") for sentence in rng.sample(PROSE, rng.randint(2, 4))]
        parts += [self._plant() for _ in range(rng.randint(0, 3))]
        parts += [self._negative() for _ in range(rng.randint(0, 2))]
        rng.shuffle(parts)
        text, plants = "", []
        for sentence, kind, value in parts:
            if value:
                start = len(text) + sentence.index(value)
                plants.append(Plant(kind, start, start + len(value)))
            text += sentence + rng.choice([" ", "\n", "\n\n"])
        return Message(text, tuple(plants))

    def _plant(self) -> tuple[str, str, str]:
        kind, template, value = self._rng.choice([self._secret, self._person, self._number])()
        return template.replace("{}", value), kind, value

    def _secret(self) -> tuple[str, str, str]:
        kind, value, template = self._rng.choice(
            [
                ("github-token", "ghp_{A62:30}{crc62}", "The deploy script still uses {} somewhere."),
                ("npm-token", "npm_{A62:30}{crc62}", "Publishing fails with {}, see the log."),
                ("aws-access-key-id", "AKIA{b32:16}", "We set the access key id to {} in the console."),
                ("aws-secret-access-key", "{b64:40}", "aws_secret_access_key = {}"),
                ("slack-token", "xoxb-{d:12}-{d:13}-{A62:24}", "The bot runs with {} as its token value."),
                ("stripe-key", "sk_live_{A62:24}", "Payments use {} since the migration."),
                ("jwt", "{jwt}", "The request carried {} in its header"),
                (
                    "private-key",
                    "-----BEGIN PRIVATE KEY-----\n{b64:64}\n{b64:64}\n-----END PRIVATE KEY-----",
                    "Here it is:\n{}\nthanks.",
                ),
                ("url-credentials", "app:{A62:16}", "It connects to postgres://{}@db.internal:5432/main every minute."),
                ("secret-assignment", "{A62:28}", 'client_secret: "{}"'),
            ]
        )
        return kind, template, self._maker.fill(value)

    def _person(self) -> tuple[str, str, str]:
        rng = self._rng
        name = f"{rng.choice(GIVEN)} {rng.choice(FAMILY)}"
        rare = rng.choice(RARE)
        street = f"{rng.randint(1, 9999)} {rng.choice(STREETS)} {rng.choice(TYPES)}, {rng.choice(CITIES)}"
        day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1940, 2005)
        born = rng.choice(
            [f"{year}-{month:02d}-{day:02d}", f"{month:02d}/{day:02d}/{year}", f"{MONTHS[month - 1]} {day}, {year}"]
        )
        return rng.choice(
            [
                ("person", "My name is {}, and I bought two of them.", rng.choice([name, rare])),
                ("person", "Yesterday I talked to {} about it.", name),
                ("person", "Dear {}, thank you for the quick answer.", rng.choice([name.partition(" ")[0], rare])),
                ("person", "Best regards,\n{}", name),
                (
                    "email",
                    "You can reach me at {} any time.",
                    f"{name.lower().replace(' ', rng.choice('._'))}@mail{rng.randint(1, 99)}.com",
                ),
                ("email", "The account is registered to {}.", f"{rare.lower()}{rng.randint(1, 999)}@post.co.uk"),
                ("postal-address", "Please ship it to {}.", street),
                ("date-of-birth", "My date of birth is {} if you need it.", born),
            ]
        )

    def _number(self) -> tuple[str, str, str]:
        rng, maker = self._rng, self._maker
        card = maker.fill(rng.choice(["{luhn:453:16}", "{luhn:52:16}", "{luhn:37:15}"]))
        grouped = " ".join(card[at : at + 4] for at in range(0, 16, 4)) if len(card) == 16 else card
        iban = maker.fill(rng.choice(["{iban:DE}", "{iban:FR}", "{iban:NL}", "{iban:GB}"]))
        line = f"{rng.randint(201, 989)} 555 01{rng.randint(0, 99):02d}"
        return rng.choice(
            [
                ("payment-card", "I paid with card {} in the shop.", rng.choice([card, grouped])),
                ("payment-card", "Visa or not, the number {} was refused.", grouped),
                (
                    "iban",
                    "Send the refund to {} please.",
                    rng.choice([iban, " ".join(iban[i : i + 4] for i in range(0, len(iban), 4))]),
                ),
                (
                    "us-ssn",
                    "My social security number is {} by the way.",
                    f"{rng.randint(100, 665)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}",
                ),
                ("phone", "Call me on {} after six.", f"+1 {line}"),
                ("phone", "My phone is {} as always.", f"({line[:3]}) {line[4:7]}-{line[8:]}"),
                ("phone", "Or try {} in Berlin.", f"+49 30 {rng.randint(1000000, 9999999)}"),
                (
                    "ip-address",
                    "The last login came from {} at night.",
                    f"{rng.randint(40, 99)}.{rng.randint(100, 255)}.{rng.randint(32, 255)}.{rng.randint(32, 255)}",
                ),
                ("customer-number", "My customer number is {} for reference.", f"C-{rng.randint(100000, 9999999)}"),
            ]
        )

    def _negative(self) -> tuple[str, str, str]:
        value, template = self._rng.choice(
            [
                ("{hex:40}", "The fix is in commit {} on main."),
                ("{hex:8}-{hex:4}-4{hex:3}-a{hex:3}-{hex:12}", "The request id was {} in the trace."),
                ("4{d:15}", "The parcel has tracking number {} now."),
                ("AKIAIOSFODNN7EXAMPLE", "The manual shows {} as the key."),
                ("ghp_{A62:36}", "I made up {} for the test."),
                ("sha512-{b64:86}==", 'The lock file says "integrity": "{}"'),
                ("data:image/png;base64,{b64:120}", "The page embeds {} as its logo."),
                ("your_api_key_here", "Set api_key = {} first."),
                ("${DATABASE_PASSWORD}", "We start it with password={} in the file."),
                ("10.4.{d:2}.{d:2}", "The printer sits at {} in the office."),
                ("978-3-16-148410-0", "The book has ISBN {} on its back."),
                ("{d:2}.{d:2}.{d:3}", "It broke after the upgrade to version {} this week."),
                ("DE00{d:18}", "Their form rejected {} as a bank account."),
                ("000-{d:2}-{d:4}", "The sample shows {} as a placeholder."),
                ("{d:9}", "The order {} has not arrived."),
                ("@support_team", "Ask {} in the chat."),
                ("Quarterly Business Review", "The {} is on Friday."),
                ("United Kingdom", "We moved to the {} last year."),
            ]
        )
        filled = self._maker.fill(value)
        return template.replace("{}", filled), "", filled
