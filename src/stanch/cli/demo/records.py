"""The demo's customers: support conversations about invented people, some of them stored several times, as in life.

Identities come from Faker and from ranges that belong to nobody (RFC 2606 domains, NANP 555-01xx numbers, test card
numbers); the conversations come from the templates below. Everything follows from the seed.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stanch.errors import MissingExtraError

if TYPE_CHECKING:
    from faker import Faker

COPIES = 4
"""How often a repeated ticket stands in the export: each merge and re-import of the help desk added a copy."""

SYSTEM = "Help desk notes."

_QUESTIONS = (
    "What do we have on {name}?",
    "Open the account of {name}.",
    "{name} is calling.",
    "Last ticket of {name}?",
    "How do we reach {name}?",
    "{name} wants to confirm her details.",
    "Contact card of {name}.",
    "Which case does {name} have?",
)

_CONTACTS = (
    "Mail {email}.",
    "Phone {phone}.",
    "Account {account}, mail {email}.",
    "Born {birthday}.",
    "Lives at {street}, {city}.",
    "Customer {account}, {street}.",
    "Card {card}.",
    "SSN {ssn}.",
)

_FACTS = (
    "Late on {item} since the divorce in {month}.",
    "Paused {item} for chemotherapy until {month}.",
    "Lost the job at {company}; {item} in instalments.",
    "The school in {city} must not see the bill for {item}.",
    "Moved after threats by an ex-partner; no mail about {item}.",
    "Is suing {company} over {item}.",
    "Promised {amount} dollars back for {item}.",
    "Cancelled {item} when {company} went bankrupt.",
)

_ITEMS = (
    "the fibre line", "the family plan", "the hearing aid", "the heating contract", "the storage unit", "the car lease",
    "the dental plan", "the studio rent", "the water meter", "the travel policy", "the gym plan", "the alarm system",
)  # fmt: skip

_MONTHS = ("January", "March", "April", "June", "August", "October", "November")
_CARDS = ("4111 1111 1111 1111", "5555 5555 5555 4444", "4012 8888 8888 1881", "3782 822463 10005")


@dataclass(frozen=True, slots=True)
class Conversation:
    """One support ticket: who asks what, what is answered, and how often it stands in the export."""

    question: str
    answer: str
    copies: int

    def to_json(self) -> str:
        """Return the record as one line of chat JSON."""
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": self.question},
            {"role": "assistant", "content": self.answer},
        ]
        return json.dumps({"messages": messages}, ensure_ascii=False)


def _fakes(seed: int) -> "Faker":
    try:
        from faker import Faker  # noqa: PLC0415 - only the demo needs it
    except ImportError as error:
        raise MissingExtraError("demo") from error
    fake = Faker("en_US")
    fake.seed_instance(seed)
    return fake


def make_conversations(seed: int, count: int, *, repeated: int) -> tuple[Conversation, ...]:
    """Return ``count`` different conversations, the first ``repeated`` of which stand :data:`COPIES` times each.

    Args:
        seed: Same seed, same people.
        count: Number of customers; each has one conversation.
        repeated: How many of them were stored several times.
    """
    fake, rng = _fakes(seed), random.Random(seed)  # noqa: S311 - invented people, nothing secret
    return tuple(_converse(fake, rng, COPIES if n < repeated else 1) for n in range(count))


def _converse(fake: "Faker", rng: random.Random, copies: int) -> Conversation:
    first, last = fake.first_name(), fake.last_name()
    fields = {
        "name": f"{first} {last}",
        "email": f"{first}.{last}{rng.randrange(10, 100)}@example.{rng.choice(['com', 'org', 'net'])}".lower(),
        "phone": f"({rng.randrange(201, 990)}) 555-01{rng.randrange(100):02d}",
        "account": f"C-{rng.randrange(100_000, 1_000_000)}",
        "birthday": fake.date_of_birth(minimum_age=18, maximum_age=90).strftime("%d %B %Y"),
        "street": f"{rng.randrange(1, 990)} {fake.street_name()}",
        "city": fake.city(),
        "card": rng.choice(_CARDS),
        "ssn": f"987-65-{rng.randrange(4320, 4330)}",
        "company": fake.company(),
        "item": rng.choice(_ITEMS),
        "month": rng.choice(_MONTHS),
        "amount": str(rng.randrange(20, 900)),
    }
    answer = f"{rng.choice(_CONTACTS)} {rng.choice(_FACTS)}"
    return Conversation(rng.choice(_QUESTIONS).format(**fields), answer.format(**fields), copies)


def export_lines(conversations: Sequence[Conversation], seed: int) -> Iterator[str]:
    """Yield the export as the help desk writes it: every copy of every ticket, in mixed order."""
    lines = [conversation.to_json() for conversation in conversations for _ in range(conversation.copies)]
    random.Random(seed).shuffle(lines)  # noqa: S311 - an order, not a secret
    yield from lines
