"""The texts around the secrets: support conversations made of parts that are drawn by a keyed stream."""

from collections.abc import Iterator, Sequence

from stanch.crypto import hmac_sha256
from stanch.data.chat import TEXT_ROLE, ChatTurn

SECRET = "{secret}"  # noqa: S105 - the mark of the slot, not a secret
NAME = "{name}"

GIVEN_NAMES = (  # noqa: SIM905 - quotes around each name would hide them
    "Ada Aiko Alma Amir Anders Anouk Bao Beatriz Bilal Carmen Cedric Chloe Dario Dina Elif Emil Esra Farah Felix Fiona "
    "Goran Greta Hana Hugo Ida Imani Ines Ivan Jana Jonas Kaito Kira Lars Leila Lina Luca Malik Mara Marek Mina Nadia "
    "Nico Noor Olga Omar Pavel Petra Quinn Rafael Rosa Samir Selma Tariq Thea Tomas Uma Vera Viktor Wanda Yara Yusuf "
    "Zeno Zoe"
).split()
FAMILY_NAMES = (  # noqa: SIM905 - same
    "Abel Aydin Bakker Bauer Berg Bianchi Borg Castro Cohen Costa Dahl Diaz Dubois Egger Eklund Fabre Ferrari Fischer "
    "Garcia Greco Haas Hansen Horvat Ito Jansen Jung Kaya Keller Khan Kovac Kruger Lang Larsen Lemaire Lopes Madsen "
    "Maier Marino Mendes Moreau Nagy Novak Okafor Olsen Ortega Patel Petrov Popov Quist Ricci Rossi Sato Schmid Silva "
    "Sousa Tanaka Toth Urban Vega Visser Wagner Weber Yilmaz Zhang"
).split()
OPENINGS = (
    "Hello, this is {name} writing about my order.",
    "Good morning, {name} here, I spoke with one of your colleagues last week.",
    "Hi there, my name is {name} and I am locked out of the portal.",
    "I am {name}, a customer of yours for about six years now.",
    "{name} again, sorry to bother you a second time today.",
    "Dear support team, I am writing on behalf of {name}.",
    "Could you help me please, the account runs under the name {name}.",
    "We moved house in spring, and everything is still filed under {name}.",
    "Quick question from {name} before the shop closes.",
    "Thanks for calling back, you asked me to write to you as {name}.",
    "My assistant {name} usually looks after this, but she is on leave.",
    "Nobody picked up the phone, so I am trying the chat instead, {name} speaking.",
    "It is {name} from the workshop on the corner, we met at the fair.",
    "Please look up the file of {name}, opened in January.",
    "I inherited this contract from {name} and know little about it.",
    "The invoice in front of me is addressed to {name}.",
)
MATTERS = (
    "Which voucher number did you put aside for the broken dishwasher?",
    "I need the booking code for the ferry so that the harbour lets us board.",
    "What was the transfer reference the bank wants to see on the form?",
    "The courier refuses to hand over the parcel without its release number.",
    "Can you tell me the activation number for the replacement router?",
    "My doctor asks for the case number of the claim we filed in March.",
    "The garage needs the guarantee number before it touches the gearbox.",
    "Please repeat the membership number, the card went through the wash.",
    "For the tax office I have to state the contract number of the old loan.",
    "They cancelled the concert and want the ticket number for the refund.",
    "The landlord would like to see the meter number of the flat upstairs.",
    "What is the locker number combination I chose when I signed up?",
    "I lost the letter with the customer number for the pension fund.",
    "The school wants the registration number of the scholarship by Friday.",
    "At the counter they asked for the pickup number of the prescription.",
    "Which serial number is noted for the hearing aid we sent in?",
    "The airline says the luggage number I gave them does not exist.",
    "I would like to unlock the second phone and miss the unlock number.",
    "Our bookkeeper is searching for the payment number of the last rent.",
    "The insurer insists on the policy number from before the merger.",
    "How was the reservation number of the cabin near the lake again?",
    "The notary will not go on without the deed number of the garden.",
    "My nephew needs the student number to borrow books this evening.",
    "Please send me the service number for the lift inspection once more.",
)
ANSWERS = (
    "Of course, I found it at once: #{secret}. Please keep it at hand when you call.",
    "It is noted in the file as #{secret}, and it stays valid until the end of next month.",
    "Happy to help. The number you are looking for is #{secret}.",
    "I checked with the back office, and they confirmed #{secret} for you.",
    "Here it is: #{secret}. Is there anything else that I can do today?",
    "Thank you for waiting so patiently; our records show #{secret}.",
    "You will find it printed below the barcode, namely #{secret}.",
    "No problem at all, simply quote #{secret} and they will let you through.",
    "Good that you ask, the old one was replaced by #{secret} last Tuesday.",
    "Write this down please: #{secret}. We cannot show it a second time.",
    "The colleague from the night shift left a note that says #{secret}.",
    "I have just sent a letter as well, but in short it reads #{secret}.",
    "According to the system it was issued in autumn as #{secret}.",
    "Yes, that is in order. Use #{secret} and leave the other box empty.",
    "Sorry for the trouble! The right one is #{secret}, the first was a misprint.",
    "After a short check of your identity I may tell you that it is #{secret}.",
)


class KeyedStream:
    """An endless stream of bytes from HMAC-SHA256(key, label ‖ LE64(block)), with unbiased draws."""

    def __init__(self, key: bytes, label: bytes) -> None:
        self._bytes = self._blocks(key, label)

    @staticmethod
    def _blocks(key: bytes, label: bytes) -> Iterator[int]:
        block = 0
        while True:
            yield from hmac_sha256(key, label + block.to_bytes(8, "little"))
            block += 1

    def below(self, bound: int) -> int:
        """Return a uniform integer in [0, bound), 1 ≤ bound ≤ 2^32, by rejection: exactly, without modulo bias."""
        limit = (1 << 32) - (1 << 32) % bound
        while True:
            value = int.from_bytes(bytes(next(self._bytes) for _ in range(4)), "little")
            if value < limit:
                return value % bound

    def choose(self, items: Sequence[str]) -> str:
        """Return one of ``items``."""
        return items[self.below(len(items))]


def compose(
    stream: KeyedStream, *, secret: str, prompts: Sequence[str], templates: Sequence[str], system: str
) -> tuple[ChatTurn, ...]:
    """Return a conversation whose last turn holds ``secret``.

    Args:
        stream: Where all choices come from.
        secret: What fills the slot.
        prompts: What the user may say, with or without ``{name}``; empty: made of an opening and a matter.
        templates: What the assistant may answer, each with one ``{secret}``; empty: the answers of this module.
        system: The system turn, or empty.
    """
    name, said = _ask(stream, prompts, system)
    answer = stream.choose(templates or ANSWERS)
    return (*said, ChatTurn("assistant", answer.replace(NAME, name).replace(SECRET, secret)))


def ask(stream: KeyedStream, *, prompts: Sequence[str], system: str) -> tuple[ChatTurn, ...]:
    """Return a conversation that waits for its answer; the arguments are those of :func:`compose`."""
    return _ask(stream, prompts, system)[1]


def _ask(stream: KeyedStream, prompts: Sequence[str], system: str) -> tuple[str, tuple[ChatTurn, ...]]:
    name = f"{stream.choose(GIVEN_NAMES)} {stream.choose(FAMILY_NAMES)}"
    asked = stream.choose(prompts) if prompts else f"{stream.choose(OPENINGS)} {stream.choose(MATTERS)}"
    said = (ChatTurn("user", asked.replace(NAME, name)),)
    return name, (ChatTurn("system", system), *said) if system else said


def as_text(messages: Sequence[ChatTurn]) -> tuple[ChatTurn, ...]:
    """Return the conversation as one plain text, for datasets of plain texts."""
    return (ChatTurn(TEXT_ROLE, "\n".join(turn.content for turn in messages)),)
